"""The door to HTTP: one exchange, redirects followed, the token kept at home, failures sorted.

Counterparts: `hub.py`, which knows the addresses, and `transfer.py`, which knows what to do with the bytes.
What another try may mend comes out as `Broken`, what it cannot as DownloadFailed; no error of the HTTP
library leaves this module.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.models.patience import Broken
from mesh_llm.models.places import ModelPlaces

REDIRECTS_MAX = 10
"""A file of the hub takes two; curl and browsers stop at 20 to 50."""

CONNECT_S_MAX = 30.0
SILENCE_S_MAX = 60.0
"""Without a byte. Storage behind a hub may have to fetch the file first."""

READ_BUFFER_BYTES = 64 * 1024
"""The library drops what waits there, up to twice this and one packet, when a connection breaks."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRANSIENT = frozenset({408, 425, 429})
"""Beside 5xx: the answers that say `later` rather than `no`."""


class Answer:
    """What came back, with its body still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises Broken where it ends before it should."""
        with _sorted_failures(self.url):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def json(self, bytes_max: int) -> object:
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > bytes_max:
                raise DownloadFailed(
                    f"{self.url} answered with more than {bytes_max} bytes: it is no model hub."
                )
        try:
            return json.loads(body)
        except ValueError as error:
            raise DownloadFailed(
                f"{self.url} did not answer with JSON: it is no model hub, check HF_ENDPOINT and the proxy."
            ) from error


class Web:
    """A session with one hub. `async with Web(places) as web`."""

    def __init__(self, places: ModelPlaces) -> None:
        self._places = places
        self._token = places.token or _read_token(places)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX, sock_read=SILENCE_S_MAX)
        self._session = aiohttp.ClientSession(
            timeout=timeout, read_bufsize=READ_BUFFER_BYTES, auto_decompress=False, trust_env=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    @property
    def has_token(self) -> bool:
        return self._token is not None

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        enough: Callable[[Answer], bool] = lambda _: False,
    ) -> AsyncGenerator[Answer]:
        """One request, redirected until an answer is final or `enough`. Raises Broken and DownloadFailed."""
        for _ in range(REDIRECTS_MAX):
            async with self._one(method, url, headers) as answer:
                target = answer.headers.get("Location")
                if answer.status not in REDIRECTS or target is None or enough(answer):
                    yield answer
                    return
            url = _redirected(url, target)
        raise DownloadFailed(
            f"{url}: redirected more than {REDIRECTS_MAX} times. Check HF_ENDPOINT and the proxy."
        )

    @asynccontextmanager
    async def _one(self, method: str, url: str, headers: Mapping[str, str]) -> AsyncGenerator[Answer]:
        assert self._session is not None
        sent = {"User-Agent": "mesh-llm", "Accept-Encoding": "identity", **headers}
        if self._token is not None and _origin(url) == _origin(self._places.endpoint):
            sent["Authorization"] = f"Bearer {self._token}"
        request = self._session.request(
            method, url, headers=sent, allow_redirects=False, proxy=self._proxy(url)
        )
        with _sorted_failures(url):
            response = await request
        try:
            yield Answer(response, url)
        finally:
            # A body that was not read to its end takes the connection with it.
            response.close()

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        proxies = self._places.proxies
        if _needs_no_proxy((parts.hostname or "").lower(), parts.netloc.lower(), proxies.get("no", "")):
            return None
        return proxies.get(parts.scheme) or proxies.get("all")


class _sorted_failures:  # noqa: N801 - used as a statement
    """Turns what the HTTP library raises into Broken."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            raise DownloadFailed(f"{self._url} is no address: check HF_ENDPOINT.") from error
        if isinstance(error, aiohttp.ClientSSLError):
            raise DownloadFailed(
                f"{self._url} gives no connection that this machine trusts ({error}): check the address, "
                "the clock, the proxy and SSL_CERT_FILE."
            ) from error
        if isinstance(error, TimeoutError):
            raise Broken("the other side has gone silent") from error
        if isinstance(error, aiohttp.ClientError | ConnectionError):
            raise Broken(str(error) or type(error).__name__) from error


def later(answer: Answer) -> Broken | None:
    """The failure that a status means, where another try may help; None for every other status."""
    if answer.status < 500 and answer.status not in TRANSIENT:
        return None
    wait = answer.headers.get("Retry-After", "")
    return Broken(f"HTTP {answer.status}", float(wait) if wait.isascii() and wait.isdigit() else None)


def _redirected(url: str, target: str) -> str:
    following = urljoin(url, target)
    if urlsplit(following).scheme not in ("http", "https"):
        raise DownloadFailed(f"{url} redirects to {following!r}, which is no web address: check HF_ENDPOINT.")
    if urlsplit(url).scheme == "https" and urlsplit(following).scheme == "http":
        raise DownloadFailed(f"{url} redirects to {following!r} without encryption: check HF_ENDPOINT.")
    return following


def _needs_no_proxy(host: str, address: str, exceptions: str) -> bool:
    """`exceptions` as in `no_proxy`: hosts and domains, with or without port or leading dot; `*` is all."""
    for exception in filter(None, (word.strip().lower().lstrip(".") for word in exceptions.split(","))):
        if exception == "*" or exception in (host, address) or host.endswith(f".{exception}"):
            return True
    return False


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    usual = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def _read_token(places: ModelPlaces) -> str | None:
    if places.token_file is None:
        return None
    try:
        return places.token_file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
