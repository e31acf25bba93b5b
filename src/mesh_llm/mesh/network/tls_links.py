"""The links of the fast path with one peer: dialled when a stream needs one, kept for the next, served.

`tls_path.py` is the node's listener. Where the peer does not answer there is no link, and the stream goes
over iroh.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.addresses import check_fast_path
from mesh_llm.mesh.network.socket_addresses import host_and_port
from mesh_llm.mesh.network.streams import Pipe
from mesh_llm.mesh.network.tls_identity import node_of
from mesh_llm.mesh.network.tls_link import BUFFER_BYTES, SHUTDOWN_SECONDS_MAX, LinkPipe, TlsLink
from mesh_llm.mesh.network.tls_path import READY, TlsPath
from mesh_llm.mesh.transport import FastPath, PeerError, Unreachable
from mesh_llm.runtime.bell import Bell

DIAL_SECONDS_MAX = 0.5
"""Within a building it takes 3 ms. A stream waits for this at most before it goes over iroh."""

NEAR_SECONDS_MAX = 0.010
"""Of a round trip: as in a building, or a town. Beyond, no stream waits for a dial."""

RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 1.0, 60.0
"""After a dial in vain, doubled each time. The first may come before the peer knows our certificate."""

IDLE_SECONDS_MAX = 30.0
"""A link that carries nothing is closed by who dialled it."""

IDLE_SECONDS_MAX_THERE = 120.0
"""The other side waits longer, so that it never closes a link that is just being taken."""

LINKS_MAX = 64
"""Dialled at once to one peer; each is a socket and some 600 kB. More streams go over iroh."""

LINKS_IDLE_MAX = 8

READY_SECONDS_MAX = 5.0
"""For the peer to have ended a stream too, and to wait for the next."""

GOODBYE_SECONDS_MAX = 1.0

Address = tuple[str, int]


class TlsLinks:
    """The links with one peer, for one connection to it."""

    def __init__(
        self, path: TlsPath, peer: NodeId, offer: FastPath, deliver: Callable[[Pipe], Awaitable[None]]
    ) -> None:
        """`deliver` gets the pipes of streams that the peer opens. Raises PeerError for a bad offer."""
        if node_of(offer.certificate) != peer:
            raise PeerError("a fast path whose certificate is another node's")
        check_fast_path(offer)
        self._addresses = [_read(address) for address in offer.addresses]
        self._path = path
        self._offer = offer
        self._deliver = deliver
        self._context = path.identity.client_context(offer.certificate)
        self._idle: dict[TlsLink, asyncio.TimerHandle] = {}
        self._here: set[LinkPipe] = set()
        self._there: dict[LinkPipe, asyncio.Future[bool]] = {}
        """With whether its link can carry another stream, once that is known."""
        self._over: set[TlsLink] = set()
        """Whose stream has ended here, and perhaps not there."""
        self._served: set[TlsLink] = set()
        self._retry_at = 0.0
        self._retry_after = RETRY_SECONDS_MIN
        self._answered: Address | None = None
        self._dialling_aside = False
        self._closed = False
        self._changed = Bell()
        path.admit(offer.certificate, self)

    async def open_pipe(self, round_trip_s: float | None) -> Pipe | None:
        """None where the fast path does not answer now, or would have to be dialled over a long way: that
        takes three round trips, a stream over iroh one. The link is then there for a later stream."""
        link = self._idle_link()
        if link is None and (round_trip_s or 0.0) > NEAR_SECONDS_MAX:
            self._dial_aside()
            return None
        link = link or await self._dialled()
        if link is None:
            return None
        pipe = LinkPipe(link, self._over_here)
        self._here.add(pipe)
        return pipe

    async def serve(self, link: TlsLink) -> None:
        """Deliver the streams that the peer sends over a link that it has dialled, until it ends."""
        self._served.add(link)
        try:
            while not self._closed and await self._serve_one(link):
                await link.write(READY)
        except Unreachable:
            pass
        finally:
            self._served.discard(link)
            link.abort()

    async def close(self, *, at_once: bool) -> None:
        """Ends every link. Streams have a moment: to read on, or `at_once` only for what was finished."""
        if self._closed:
            return
        self._closed = True
        self._path.dismiss(self._offer.certificate, self)
        for link, timer in self._idle.items():
            timer.cancel()
            link.abort()
        self._idle.clear()
        self._abort(lambda pipe: at_once and not pipe.is_finished)
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS_MAX):
                while self._here or self._there:
                    await self._changed.wait_for_ring()
        self._abort(lambda _: True)
        for over in self._there.values():
            _settle(over, False)
        for link in self._over:
            link.abort()

    def _abort(self, condition: Callable[[LinkPipe], bool]) -> None:
        carrying = {pipe.link for pipe in self._there}
        for pipe in (*self._here, *self._there):
            if condition(pipe):
                pipe.link.abort()
        for link in self._served - carrying:
            link.abort()

    async def _serve_one(self, link: TlsLink) -> bool:
        """Whether the link can carry another stream."""
        try:
            async with asyncio.timeout(IDLE_SECONDS_MAX_THERE):
                first = await link.read(BUFFER_BYTES)
        except (TimeoutError, Unreachable):
            return False
        if not first:
            return False
        link.unread(first)
        over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        pipe = LinkPipe(link, lambda _, clean: _settle(over, clean))
        self._there[pipe] = over
        try:
            await self._deliver(pipe)
            clean = await over
        finally:
            del self._there[pipe]
            self._changed.ring()
        if not clean and pipe.is_finished:
            await link.linger()
        return clean

    def _idle_link(self) -> TlsLink | None:
        while self._idle:
            link, timer = self._idle.popitem()
            timer.cancel()
            if link.is_usable:
                return link
            link.abort()
        return None

    def _over_here(self, pipe: LinkPipe, clean: bool) -> None:
        self._here.discard(pipe)
        self._changed.ring()
        link = pipe.link
        if not (clean or pipe.is_finished):
            return
        if clean:
            self._path.tasks.create_task(self._keep_for_next(link), name="fast path next")
        else:
            self._path.tasks.create_task(link.linger(), name="fast path goodbye")

    async def _keep_for_next(self, link: TlsLink) -> None:
        """Once the peer says that it waits for another: it may have broken off what ended well here."""
        is_ready = False
        self._over.add(link)
        with suppress(TimeoutError, Unreachable):
            async with asyncio.timeout(READY_SECONDS_MAX):
                is_ready = await link.read(len(READY)) == READY
        self._over.discard(link)
        await (self._keep(link) if is_ready else link.close())

    async def _keep(self, link: TlsLink) -> None:
        if len(self._idle) >= LINKS_IDLE_MAX or self._closed:
            await link.close()
            return
        timer = asyncio.get_running_loop().call_later(IDLE_SECONDS_MAX, self._retire, link)
        self._idle[link] = timer

    def _dial_aside(self) -> None:
        if not self._dialling_aside and not self._closed:
            self._dialling_aside = True
            self._path.tasks.create_task(self._dial_spare(), name="fast path spare")

    async def _dial_spare(self) -> None:
        link = await self._dialled()
        self._dialling_aside = False
        if link is not None:
            await self._keep(link)

    def _retire(self, link: TlsLink) -> None:
        del self._idle[link]
        link.abort()

    async def _dialled(self) -> TlsLink | None:
        now = asyncio.get_running_loop().time()
        if self._closed or now < self._retry_at or len(self._here) >= LINKS_MAX:
            return None
        link = None
        with suppress(TimeoutError):
            async with asyncio.timeout(DIAL_SECONDS_MAX):
                link = await self._first_to_answer()
        if link is not None and self._closed:
            link.abort()
            return None
        if link is None:
            self._answered = None
            self._retry_at = now + self._retry_after
            self._retry_after = min(2 * self._retry_after, RETRY_SECONDS_MAX)
        else:
            self._retry_after = RETRY_SECONDS_MIN
        return link

    async def _first_to_answer(self) -> TlsLink | None:
        """Of all addresses, or the one that answered before."""
        found: list[TlsLink] = []
        attempts: list[asyncio.Task[None]] = []

        async def attempt(address: Address) -> None:
            link = await self._attempt(address)
            if link is None:
                return
            found.append(link)
            self._answered = address
            for other in attempts:
                if other is not asyncio.current_task():
                    other.cancel()

        async with asyncio.TaskGroup() as tasks:
            addresses = [self._answered] if self._answered else self._addresses
            attempts += [tasks.create_task(attempt(address)) for address in addresses]
        for late in found[1:]:
            late.abort()
        return found[0] if found else None

    async def _attempt(self, address: Address) -> TlsLink | None:
        try:
            reader, writer = await asyncio.open_connection(
                *address,
                limit=BUFFER_BYTES,
                ssl=self._context,
                server_hostname="",
                ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
            )
        except (OSError, EOFError):
            return None
        link = TlsLink(reader, writer)
        is_ready = False
        try:
            if link.certificate == self._offer.certificate:
                is_ready = await link.read(len(READY)) == READY
        except Unreachable:
            pass  # it does not know our certificate yet
        finally:
            if not is_ready:
                link.abort()
        return link if is_ready else None


def _settle(over: asyncio.Future[bool], clean: bool) -> None:
    if not over.done():
        over.set_result(clean)


def _read(address: str) -> Address:
    """Raises PeerError."""
    found = host_and_port(address)
    if found is None:
        raise PeerError("a fast path with an address that is none")
    return found
