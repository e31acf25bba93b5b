"""What every HTTP server of this node has in common: how it runs, and that it may be private."""

import asyncio
import socket

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh_llm.core.loopback import host_name, is_loopback, is_loopback_origin
from mesh_llm.runtime.listening import BACKLOG, listen
from mesh_llm.runtime.web_connection import WebConnections

SHUTDOWN_S = 1.0
"""For answers under way when the node stops; the whole node has 5 s."""


async def serve(application: web.Application, listener: socket.socket) -> None:
    """Answer on `listener` until cancelled. A client that leaves cancels the handler of its request; one that
    only ends its own side is answered."""
    connections = WebConnections()
    connections.follow(application)
    runner = web.AppRunner(
        application, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    server = None
    try:
        server = await _start(runner, connections, listener)
        await asyncio.Event().wait()
    finally:
        if server is not None:
            server.close()
        await asyncio.shield(runner.cleanup())
        listener.close()


async def _start(
    runner: web.AppRunner, connections: WebConnections, listener: socket.socket
) -> asyncio.Server:
    handlers = runner.server
    assert handlers is not None, "the runner has been set up"
    listen(listener)
    return await asyncio.get_running_loop().create_server(
        lambda: connections.accept(handlers()), sock=listener, backlog=BACKLOG
    )


def is_foreign(request: web.Request) -> bool:
    """Whether it comes from a page of another site, or under a name that is not this machine's."""
    origin = request.headers.get("Origin")
    foreign_origin = origin is not None and not is_loopback_origin(origin)
    return foreign_origin or not is_loopback(host_name(request.host))


@web.middleware
async def only_from_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what `is_foreign`."""
    if is_foreign(request):
        raise web.HTTPForbidden(text="This console answers pages and names of this machine only.\n")
    return await handler(request)
