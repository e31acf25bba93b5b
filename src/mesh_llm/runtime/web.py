"""What every HTTP server of this node has in common: how it runs, and who may ask it.

A page of any web site can send requests to loopback ports through its visitor's browser. Two headers that
a page cannot forge tell such requests from honest ones: `Origin` names the page's site, and `Host` the name
that was looked up (a site may point its own name at 127.0.0.1).
"""

import asyncio
import socket
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh_llm.core.errors import AddressInUse
from mesh_llm.runtime.listening import port_of

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

SHUTDOWN_S = 1.0
"""For answers under way when the node stops; the whole node has 5 s."""


async def serve(application: web.Application, listener: socket.socket) -> None:
    """Answer on `listener` until cancelled. A client that leaves cancels the handler of its request."""
    runner = web.AppRunner(
        application, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    try:
        await _start(runner, listener)
        await asyncio.Event().wait()
    finally:
        await asyncio.shield(runner.cleanup())
        listener.close()


async def _start(runner: web.AppRunner, listener: socket.socket) -> None:
    try:
        await web.SockSite(runner, listener).start()
    except OSError as error:  # two programs may reserve a port, one can listen
        port = port_of(listener)
        raise AddressInUse(
            f"port {port} is in use by another program: stop that one, or choose another"
        ) from error


def is_loopback(host: str | None) -> bool:
    """Whether a host name, with or without port, is this machine's own."""
    if not host:
        return False
    name = urlsplit(f"//{host}").hostname or ""
    return name in LOOPBACK_NAMES or name.endswith(".localhost")


def is_foreign(request: web.Request) -> bool:
    """Whether it comes from a page of another site, or under a name that is not this machine's."""
    origin = request.headers.get("Origin")
    foreign_origin = origin is not None and not is_loopback(urlsplit(origin).netloc)
    return foreign_origin or not is_loopback(request.host)


@web.middleware
async def only_from_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what `is_foreign`."""
    if is_foreign(request):
        raise web.HTTPForbidden(text="This console answers pages and names of this machine only.\n")
    return await handler(request)
