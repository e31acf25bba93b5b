"""A model hub on this machine that can do everything wrong that a server can.

Two addresses, as with the real one: the hub, which describes and redirects, and the storage, which has the
bytes. HTTP is written by hand here because a well-behaved library would refuse to lie. Each connection serves
one request.
"""

import asyncio
import hashlib
import json
import re
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.models.raw_server import raw_server

COMMIT = "c0ffee" * 6 + "beef"
REASONS = {200: "OK", 206: "Partial Content", 302: "Found"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer of the storage; all fields together describe it."""

    status: int | None = None
    """Answered instead of the file."""
    retry_after: str | None = None
    ends_after: int | None = None
    """Bytes of the body, then the connection is cut."""
    chunked: bool = False
    """No Content-Length; an early end looks like a proper one."""
    length_lie: int = 0
    """Added to Content-Length."""
    total_lie: int = 0
    """Added to the total in Content-Range."""
    start_shift: int = 0
    """A part that begins elsewhere than it was asked to."""
    ignores_range: bool = False
    surplus: int = 0
    flipped_at: int | None = None
    """A bit of the body that is wrong."""
    holds_after: int | None = None
    """Bytes of the body, then nothing more until the other side goes away."""
    replaces_with: bytes | None = None
    """The file is another one from this answer on."""
    ignores_condition: bool = False
    """Does not look at `If-Range`."""


@dataclass(frozen=True)
class Seen:
    server: str
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class HubServer:
    """`async with HubServer() as hub`; put files into `hub.files` and faults into `hub.faults`."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By `org/repo/path`."""
    faults: deque[Fault] = field(default_factory=deque)
    """One for each answer of the storage in turn; without one it behaves."""
    is_hub: bool = True
    """False: an ordinary web server with the hub's paths, no checksums and no redirects."""
    lists: bool = True
    has_etag: bool = True
    has_length: bool = True
    publishes: dict[str, str] = field(default_factory=dict)
    """SHA-256 that the hub claims, where it is not the true one."""
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By repository: status and X-Error-Code."""
    hub_failures: int = 0
    """So many requests to the hub itself are answered with 503 first."""
    page_size: int = 1000
    redirects_to: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    """Repositories by their old names."""
    seen: list[Seen] = field(default_factory=list)
    bytes_sent: int = 0
    """Of files."""
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _hub_port: int = 0
    _storage_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._hub_port}"

    def requests(self, method: str = "GET", part: str = "/blob/") -> list[Seen]:
        return [each for each in self.seen if each.method == method and part in each.path]

    async def __aenter__(self) -> Self:
        answer = {name: partial(self._connection, name) for name in ("hub", "storage")}
        self._hub_port = await self._stack.enter_async_context(raw_server(answer["hub"]))
        self._storage_port = await self._stack.enter_async_context(raw_server(answer["storage"]))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _connection(
        self, server: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        request = Seen(server, method, target, headers)
        self.seen.append(request)
        await self._answer(request, reader, writer)

    async def _answer(
        self, request: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = unquote(urlsplit(request.path).path)
        if request.server == "storage":
            await self._serve(request, path.removeprefix("/blob/"), reader, writer)
            return
        if self.hub_failures:
            self.hub_failures -= 1
            await _send(writer, 503, {}, b"")
            return
        for old, new in self.renamed.items():
            if f"/{old}/" in path:
                await _send(writer, 307, {"Location": request.path.replace(old, new)}, b"")
                return
        if path.startswith("/api/models/"):
            await self._list(request, path, writer)
            return
        found = re.fullmatch(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path)
        assert found is not None, path
        await self._describe(
            request, f"{found['repository']}/{found['file']}", found["repository"], reader, writer
        )

    async def _list(self, request: Seen, path: str, writer: asyncio.StreamWriter) -> None:
        organisation, name = path.split("/")[3:5]
        repository = f"{organisation}/{name}"
        if repository in self.refuses:
            await _send(writer, *_refusal(self.refuses[repository]))
            return
        files = sorted(
            each.removeprefix(f"{repository}/") for each in self.files if each.startswith(f"{repository}/")
        )
        if not files or not self.lists:
            await _send(writer, 404, {"X-Error-Code": "RepoNotFound"}, b"")
            return
        start = int(parse_qs(urlsplit(request.path).query).get("cursor", ["0"])[0])
        page = files[start : start + self.page_size]
        headers = {}
        if start + self.page_size < len(files):
            following = f"{self.url}{path}?recursive=true&cursor={start + self.page_size}"
            headers["Link"] = f'<{following}>; rel="next"'
        entries = [
            {"type": "directory", "path": "folder"},
            *({"type": "file", "path": each} for each in page),
        ]
        await _send(writer, 200, headers, json.dumps(entries).encode())

    async def _describe(
        self,
        request: Seen,
        key: str,
        repository: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if repository in self.refuses:
            await _send(writer, *_refusal(self.refuses[repository]))
        elif key not in self.files:
            await _send(writer, 404, {"X-Error-Code": "EntryNotFound"}, b"")
        elif self.is_hub:
            data = self.files[key]
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{self.publishes.get(key, hashlib.sha256(data).hexdigest())}"',
                "Location": self.redirects_to or f"http://127.0.0.1:{self._storage_port}/blob/{key}",
            }
            await _send(writer, 302, headers, b"", head_only=request.method == "HEAD")
        else:
            await self._serve(request, key, reader, writer)

    async def _serve(
        self, request: Seen, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fault = self.faults.popleft() if self.faults and request.method == "GET" else Fault()
        if fault.replaces_with is not None:
            self.files[key] = fault.replaces_with
        data = self.files[key]
        etag = _etag(data)
        if fault.status is not None:
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            await _send(writer, fault.status, headers, b"")
            return
        asked = _asked(request, fault, etag if self.has_etag else None)
        start, end = (None, len(data)) if asked is None else (asked[0], min(asked[1], len(data)))
        if start is not None and start >= len(data):
            await _send(writer, 416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            return
        headers: dict[str, str] = {"ETag": etag} if self.has_etag else {}
        begin = 0
        if start is not None:
            begin = max(0, start + fault.start_shift)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data) + fault.total_lie}"
        if request.method == "HEAD":
            headers |= {"Content-Length": str(len(data))} if self.has_length else {}
            await _send(writer, 200, headers, b"", head_only=True)
            return
        await self._body(writer, reader, 200 if start is None else 206, headers, data[begin:end], fault)

    async def _body(
        self,
        writer: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        status: int,
        headers: dict[str, str],
        body: bytes,
        fault: Fault,
    ) -> None:
        length = len(body) + fault.length_lie
        if fault.flipped_at is not None and fault.flipped_at < len(body):
            body = (
                body[: fault.flipped_at] + bytes([body[fault.flipped_at] ^ 1]) + body[fault.flipped_at + 1 :]
            )
        body += bytes(fault.surplus)
        stop = fault.holds_after if fault.holds_after is not None else fault.ends_after
        sent = body if stop is None else body[:stop]
        self.bytes_sent += len(sent)
        framing = {"Transfer-Encoding": "chunked"} if fault.chunked else {"Content-Length": str(length)}
        writer.write(_head(status, headers | (framing if self.has_length or fault.chunked else {})))
        writer.write(_chunked(sent) if fault.chunked else sent)
        await writer.drain()
        if fault.holds_after is not None:
            self.holding.set()
            await reader.read()  # ends when the other side goes away


def _asked(request: Seen, fault: Fault, etag: str | None) -> tuple[int, int] | None:
    """Where the answer shall begin and end, or None for all of it."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    condition = request.headers.get("if-range")
    if asked is None or fault.ignores_range:
        return None
    if condition is not None and condition != etag and not fault.ignores_condition:
        return None
    return int(asked[1]), int(asked[2]) + 1 if asked[2] else sys.maxsize


@lru_cache(4)
def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _refusal(refusal: tuple[int, str]) -> tuple[int, dict[str, str], bytes]:
    status, code = refusal
    return status, {"X-Error-Code": code}, b""


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Because')}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    head_only: bool = False,
) -> None:
    writer.write(
        _head(status, headers if head_only else {**headers, "Content-Length": str(len(body))}) + body
    )
    await writer.drain()
