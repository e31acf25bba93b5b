"""Byte ranges of files at a hub, by HTTP: a few requests at once, tried again, never of another version.

Counterparts: `web.py` brings the bytes, `hub.py` says what the files are. A server that sends whole files
where ranges were asked for is refused: it would send a whole model for each layer.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.models.hub import Hub
from mesh_llm.models.patience import FAILURES_MAX, Broken, Sleep, patiently, pause_s
from mesh_llm.models.references import HubFile
from mesh_llm.models.remote_file import RemoteFile
from mesh_llm.models.stages.ranges import READ_BYTES_MAX, SourcePart
from mesh_llm.models.web import Answer, Web, later

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class HubPart:
    """One of a model's files, and what the hub said of it when it was first asked."""

    file: HubFile
    remote: RemoteFile
    size: int


class HubRanges:
    """`RangeSource` over the files of a repository. `open` makes it."""

    def __init__(self, web: Web, hub: Hub, parts: Sequence[HubPart], sleep: Sleep = asyncio.sleep) -> None:
        self._web = web
        self._hub = hub
        self._parts = tuple(parts)
        self._sleep = sleep

    @classmethod
    async def open(
        cls, web: Web, hub: Hub, files: Sequence[HubFile], endpoint: str, sleep: Sleep = asyncio.sleep
    ) -> "HubRanges":
        """Asks what the files are. Raises DownloadFailed."""
        parts: list[HubPart] = []
        for file in files:
            remote = await patiently(partial(hub.describe, file), endpoint, sleep)
            if remote.bytes is None:
                raise DownloadFailed(
                    f"{remote.url} does not say how long it is, so no part of it can be asked for: fetch the "
                    "whole model with `mesh-llm download`."
                )
            parts.append(HubPart(file, remote, remote.bytes))
        return cls(web, hub, parts, sleep)

    def __repr__(self) -> str:
        return f"<HubRanges {self._parts[0].remote.url}>"

    @property
    def described(self) -> tuple[HubPart, ...]:
        """What the hub said of each."""
        return self._parts

    @property
    def parts(self) -> tuple[SourcePart, ...]:
        return tuple(SourcePart(part.file.path, part.size) for part in self._parts)

    async def read(self, part: int, offset: int, length: int) -> bytes:
        """Raises DownloadFailed; ValueError beyond the file."""
        wanted = self._parts[part]
        if offset < 0 or not 0 < length <= READ_BYTES_MAX or offset + length > wanted.size:
            raise ValueError(f"bytes {offset} to {offset + length} of a file of {wanted.size} bytes")
        data = bytearray()
        failures = 0
        while len(data) < length:
            before = len(data)
            try:
                await self._exchange(wanted, offset, length, data)
            except Broken as broken:
                failures = 1 if len(data) > before else failures + 1
                if failures > FAILURES_MAX:
                    raise _given_up(wanted, broken) from broken
                await self._sleep(pause_s(failures, broken))
        return bytes(data)

    async def _exchange(self, part: HubPart, offset: int, length: int, data: bytearray) -> None:
        """Adds to `data` what comes of the range; bytes that came stay, however this ends."""
        first, last = offset + len(data), offset + length - 1
        headers = {"Range": f"bytes={first}-{last}"}
        if part.remote.validator:
            headers["If-Range"] = part.remote.validator
        async with self._web.exchange("GET", part.remote.url, headers) as answer:
            self._check(answer, part, first, last)
            async for chunk in answer.chunks():
                if len(data) + len(chunk) > length:
                    raise Broken("sends more than it was asked for")
                data += chunk
        if len(data) < length:
            raise Broken(f"ended {length - len(data)} bytes too early")

    def _check(self, answer: Answer, part: HubPart, first: int, last: int) -> None:
        """That these bytes come, and of the same file. Raises Broken, DownloadFailed."""
        broken = later(answer)
        if broken is not None:
            raise broken
        if answer.status == 416:
            raise _changed(part)
        if answer.status == 200:
            raise self._whole_file(answer, part)
        if answer.status != 206:
            raise self._hub.refusal(answer, part.file.repository, part.file.path)
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if found is None or (int(found[1]), int(found[2])) != (first, last):
            raise Broken("sent other bytes than it was asked for")
        if found[3] not in ("*", str(part.size)) or _is_other(answer, part):
            raise _changed(part)

    def _whole_file(self, answer: Answer, part: HubPart) -> DownloadFailed:
        if part.remote.validator and _is_other(answer, part):
            return _changed(part)
        return DownloadFailed(
            f"{answer.url} sends whole files only, and a stage needs a part: fetch the model with "
            "`mesh-llm download`, or leave out the proxy or mirror that does this."
        )


def _is_other(answer: Answer, part: HubPart) -> bool:
    """Asked only where there is no SHA-256: the storage behind a hub has ETags of its own."""
    etag = answer.headers.get("ETag")
    return part.remote.sha256 is None and etag is not None and etag != part.remote.etag


def _changed(part: HubPart) -> DownloadFailed:
    return DownloadFailed(
        f"{part.remote.url} has changed since it was first asked for: start again, so that all stages are of "
        "the same version."
    )


def _given_up(part: HubPart, broken: Broken) -> DownloadFailed:
    return DownloadFailed(
        f"{part.remote.url}: given up after {FAILURES_MAX} tries without a byte ({broken}). What has arrived "
        "is kept: try again when the network is back."
    )
