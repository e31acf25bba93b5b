"""The Hugging Face hub by its public HTTP API: what a repository holds, and what one file is.

Counterpart: `obtain.py`, which decides what to fetch, and `transfer.py`, which fetches it. Servers that only
imitate the hub's addresses (`HF_ENDPOINT`) answer with less; what they leave out is None here.
"""

import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import quote, urlsplit

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.models.references import HubFile, stays_inside
from mesh_llm.models.remote_file import RemoteFile
from mesh_llm.models.web import Answer, Web, later

LISTING_PAGES_MAX = 20
"""A page has 1,000 files, the largest GGUF repository about 400."""

LISTING_BYTES_MAX = 16 * 1024 * 1024
"""A page of 1,000 files has about 0.4 MB."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


class Hub:
    def __init__(self, web: Web, endpoint: str) -> None:
        self._web = web
        self._endpoint = endpoint

    async def files(self, repository: str, revision: str) -> tuple[str, ...]:
        """The paths of all files of a repository. Raises Broken and DownloadFailed."""
        url = (
            f"{self._endpoint}/api/models/{quote(repository)}/tree/{quote(revision, safe='')}?recursive=true"
        )
        paths: list[str] = []
        for _ in range(LISTING_PAGES_MAX):
            async with self._web.exchange("GET", url, {}) as answer:
                self._check(answer, repository, "repository")
                paths += _paths(await answer.json(LISTING_BYTES_MAX))
                following = self._next_page(answer)
            if following is None:
                return tuple(paths)
            url = following
        raise DownloadFailed(
            f"{repository} has more than {len(paths)} files: name one, as org/repo/file.gguf."
        )

    async def describe(self, file: HubFile) -> RemoteFile:
        """What the origin says of a file, without fetching it. Raises Broken and DownloadFailed."""
        url = self._address(file, file.revision)
        headers = {"Accept-Encoding": "identity"}
        async with self._web.exchange("HEAD", url, headers, enough=_is_hub_answer) as answer:
            self._check(answer, file.repository, file.path)
            commit = answer.headers.get("X-Repo-Commit", "")
            pinned = self._address(file, commit) if _COMMIT.fullmatch(commit) else url
            return _remote_file(answer.headers, pinned)

    def refusal(self, answer: Answer, repository: str, what: str) -> DownloadFailed:
        """Why the hub will not give this, and what helps."""
        page = f"{self._endpoint}/{repository}"
        said = answer.headers.get("X-Error-Code", "")
        if answer.status in (401, 403):
            return DownloadFailed(self._denied(page, repository, answer.status, said))
        if answer.status == 404 and said == "RevisionNotFound":
            return DownloadFailed(f"{repository} has no such revision: see {page} for branches and tags.")
        if answer.status in (404, 410):
            missing = (
                f"{repository} has no file {what}" if what != "repository" else f"there is no {repository}"
            )
            return DownloadFailed(
                f"{missing} at {self._endpoint} (HTTP {answer.status}): see {page} for what there is. "
                "If it is private, set HF_TOKEN."
            )
        return DownloadFailed(
            f"{answer.url} answered HTTP {answer.status}: check the name, HF_ENDPOINT and the proxy."
        )

    def _denied(self, page: str, repository: str, status: int, said: str) -> str:
        if said == "GatedRepo" or status == 403:
            return (
                f"{repository} is given only to those who accepted its terms (HTTP {status}): accept them at "
                f"{page}, then set HF_TOKEN to a token from {self._endpoint}/settings/tokens."
            )
        if self._web.has_token:
            return (
                f"{repository} is private, gated or does not exist, and the token is not allowed to see it "
                f"(HTTP {status}): check the name and {page}, or set HF_TOKEN to another token."
            )
        return (
            f"{repository} is private, gated or does not exist (HTTP {status}): check the name at {page}, "
            "accept its terms there if it has any, and set HF_TOKEN to a token from "
            f"{self._endpoint}/settings/tokens."
        )

    def _check(self, answer: Answer, repository: str, what: str) -> None:
        broken = later(answer)
        if broken is not None:
            raise broken
        if answer.status >= 400:
            raise self.refusal(answer, repository, what)

    def _address(self, file: HubFile, revision: str) -> str:
        return (
            f"{self._endpoint}/{quote(file.repository)}/resolve/{quote(revision, safe='')}/{quote(file.path)}"
        )

    def _next_page(self, answer: Answer) -> str | None:
        """Of this hub only: a listing must not send us, and the token, elsewhere."""
        found = _NEXT.search(answer.headers.get("Link", ""))
        if found is None:
            return None
        parts = urlsplit(found[1])
        page = f"{parts.path}?{parts.query}"
        prefix = urlsplit(self._endpoint).path
        return f"{self._endpoint}{page.removeprefix(prefix)}"


def _is_hub_answer(answer: Answer) -> bool:
    """The hub describes the file in the redirect to its storage; what comes after knows less."""
    return "X-Linked-Size" in answer.headers or "X-Linked-Etag" in answer.headers


def _remote_file(headers: Mapping[str, str], url: str) -> RemoteFile:
    linked = (headers.get("X-Linked-Etag") or "").strip('"')
    from_hub = "X-Linked-Size" in headers or "X-Linked-Etag" in headers
    size = headers.get("X-Linked-Size" if from_hub else "Content-Length", "")
    etag = headers.get("ETag")
    return RemoteFile(
        url=url,
        bytes=int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None,
        sha256=linked if _SHA256.fullmatch(linked) else None,
        etag=etag if etag and not etag.startswith("W/") else None,
        last_modified=headers.get("Last-Modified"),
    )


def _paths(listing: object) -> list[str]:
    """The files of one page; what is not understood, or would leave its folder, is left out."""
    if not isinstance(listing, list):
        raise DownloadFailed("The hub's listing is no list: check HF_ENDPOINT.")
    paths: list[str] = []
    for entry in cast("list[object]", listing):
        fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        path = fields.get("path")
        if isinstance(path, str) and fields.get("type", "file") == "file" and stays_inside(path):
            paths.append(path)
    return paths
