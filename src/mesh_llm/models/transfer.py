"""One file from its origin to its place: resumed, checked, tried again; never two files glued together.

Theory of operation. The `.part` grows by appending. An exchange asks for the rest (`Range`); the answer is
believed only as far as it fits: 206 must begin where we stand and be of the same version, 200 begins anew,
the total must be the one that was promised. An exchange that breaks is tried again after a pause that
doubles; each byte gained forgives the failures before it. New beginnings are counted and never forgiven, so
a server that keeps changing its mind is given up on. The whole file is compared with the SHA-256 that the
origin published before it gets its name.

Counterparts: `web.py` brings the bytes, `part_file.py` keeps them, `downloads.py` runs several of these.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.core.quantities import MIB, human_bytes
from mesh_llm.models.hub import Hub
from mesh_llm.models.part_file import PartFile
from mesh_llm.models.patience import FAILURES_MAX, Broken, Sleep, pause_s
from mesh_llm.models.references import HubFile
from mesh_llm.models.remote_file import RemoteFile
from mesh_llm.models.threads import run_to_end
from mesh_llm.models.web import Answer, Web, later

RESTARTS_MAX = 3
"""A file that changed under us is fetched anew; one that changes each time is never finished."""

APPEND_BYTES = MIB
"""Handed to the disk at once; what a kill costs at most."""

Advance = Callable[[int], None]

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to have, and where."""

    source: HubFile
    remote: RemoteFile
    target: Path


@dataclass(slots=True)
class Transfer:
    """`run` fetches one file; `advance` hears how many of its bytes are here."""

    web: Web
    hub: Hub
    wanted: Wanted
    advance: Advance
    sleep: Sleep = asyncio.sleep
    _failures: int = field(default=0, init=False)
    _restarts: int = field(default=0, init=False)
    _whole_only: bool = field(default=False, init=False)
    """Set when the origin answered a request for a part with another part."""

    async def run(self) -> str:
        """The SHA-256 of the finished file. Raises DownloadFailed and DiskFull; what arrived stays."""
        part, remote = PartFile(self.wanted.target), self.wanted.remote
        try:
            await part.resume(remote, self._resumed())
            while True:
                remote = await self._fill(part, remote)
                if remote.sha256 in (None, part.sha256()):
                    break
                self._begin_anew(part, remote, "what arrived has another SHA-256 than the origin published")
            sha256 = part.sha256()
            await run_to_end(part.finish)
        finally:
            part.close()
        return sha256

    async def _fill(self, part: PartFile, remote: RemoteFile) -> RemoteFile:
        """Exchanges until all bytes are here, as the origin describes the file by then."""
        while remote.bytes is None or part.bytes < remote.bytes:
            before = part.bytes
            try:
                if self._failures and remote.sha256 is None:
                    remote = await self._described_again(part, remote)
                await self._exchange(part, remote)
                break
            except Broken as broken:
                await self._pause(part.bytes > before, broken)
        return remote

    async def _described_again(self, part: PartFile, remote: RemoteFile) -> RemoteFile:
        """A file without a checksum may have been replaced while we paused."""
        described = await self.hub.describe(self.wanted.source)
        if described.validator is None:
            self._begin_anew(part, described, "the origin cannot continue a download")
        elif not described.same_bytes(remote):
            self._begin_anew(part, described, "the file changed at its origin")
        return described

    async def _exchange(self, part: PartFile, remote: RemoteFile) -> None:
        headers = self._request_headers(part, remote)
        async with self.web.exchange("GET", remote.url, headers) as answer:
            broken = later(answer)
            if broken is not None:
                raise broken
            if answer.status == 416:
                self._begin_anew(part, remote, "the origin has fewer bytes than are here")
                raise Broken("the origin has fewer bytes than are here")
            if answer.status not in (200, 206):
                raise self.hub.refusal(answer, self.wanted.source.repository, self.wanted.source.path)
            whole = self._place(answer, part, remote)
            await self._receive(answer, part, whole)
        if whole is not None and part.bytes < whole:
            raise Broken(f"ended after {human_bytes(part.bytes)} of {human_bytes(whole)}")

    def _request_headers(self, part: PartFile, remote: RemoteFile) -> dict[str, str]:
        if part.bytes and self._whole_only:
            self._begin_anew(part, remote, "the origin cannot continue a download")
        if not part.bytes:
            return {}
        headers = {"Range": f"bytes={part.bytes}-"}
        return headers | ({"If-Range": remote.validator} if remote.validator else {})

    def _place(self, answer: Answer, part: PartFile, remote: RemoteFile) -> int | None:
        """Makes sure that the body belongs where it will be written. The total in bytes, if anybody knows."""
        length = answer.headers.get("Content-Length", "")
        if answer.status == 200:
            if part.bytes:
                self._begin_anew(part, remote, "the origin sent the file from its beginning")
            total = int(length) if length.isdigit() else None
        else:
            start, total = _content_range(answer)
            if start != part.bytes:
                self._whole_only = True
                raise Broken(f"sent bytes from {start} when asked for those from {part.bytes}")
            if remote.sha256 is None and answer.headers.get("ETag", remote.etag) != remote.etag:
                raise Broken("sent a part of another version of the file")
        if None not in (remote.bytes, total) and total != remote.bytes:
            raise Broken(f"says that the file has {total} bytes where {remote.bytes} were promised")
        return remote.bytes if remote.bytes is not None else total

    async def _receive(self, answer: Answer, part: PartFile, whole: int | None) -> None:
        waiting = bytearray()
        try:
            async for chunk in answer.chunks():
                if whole is not None and part.bytes + len(waiting) + len(chunk) > whole:
                    waiting.clear()
                    self._whole_only = True
                    raise Broken(f"sends more than the {whole} bytes of the file")
                waiting += chunk
                if len(waiting) >= APPEND_BYTES:
                    data, waiting = waiting, bytearray()
                    await run_to_end(part.append, data)
                    self.advance(part.bytes)
        finally:
            # Also when broken or cancelled: bytes that came are bytes not to fetch again.
            part.append(waiting)
            self.advance(part.bytes)

    def _begin_anew(self, part: PartFile, remote: RemoteFile, why: str) -> None:
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            raise DownloadFailed(
                f"{remote.url}: {why}; begun anew {RESTARTS_MAX} times in vain. A proxy or mirror in between "
                "may be at fault: try without it, or later."
            )
        _log.info("%s: %s; beginning anew", remote.url, why)
        part.restart(remote)

    async def _pause(self, gained: bool, broken: Broken) -> None:
        self._failures = 1 if gained else self._failures + 1
        if self._failures > FAILURES_MAX:
            raise DownloadFailed(
                f"{self.wanted.remote.url}: given up after {self._failures} tries without a byte ({broken}). "
                "What has arrived is kept: run the same command again when the network is back."
            ) from broken
        await self.sleep(pause_s(self._failures, broken))

    def _resumed(self) -> Advance:
        done = 0

        def hashed(count: int) -> None:
            nonlocal done
            done += count
            self.advance(done)

        return hashed


def _content_range(answer: Answer) -> tuple[int, int | None]:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if found is None:
        raise Broken("sent a part without saying which")
    return int(found[1]), None if found[3] == "*" else int(found[3])
