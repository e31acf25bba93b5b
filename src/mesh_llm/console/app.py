"""The console's HTTP side: a page, the status, and the status again at each change.

Looking is free to whoever is on this machine; changing anything is `control.py`'s, and takes its key.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from importlib import resources

from aiohttp import web

from mesh_llm.console.control import Control
from mesh_llm.console.snapshot import Snapshot, as_json
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.web import only_from_this_machine, serve

KEEP_ALIVE_S = 15.0
"""A comment after this much silence: proxies cut connections that are silent for half a minute or more."""

CHANGES_APART_S = 0.1
"""Load progress and requests ring often; ten redraws a second show all that a person sees."""


class Console:
    def __init__(
        self, snapshot: Callable[[], Snapshot], changes: Bell, control: Control | None = None
    ) -> None:
        """Without `control` nothing can be changed."""
        self._snapshot = snapshot
        self._changes = changes
        self._control = control
        self._page = resources.files("mesh_llm.console").joinpath("static/index.html").read_bytes()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[only_from_this_machine])
        app.router.add_get("/", self._show_page)
        app.router.add_get("/api/status", self._show_status)
        app.router.add_get("/api/events", self._stream_status)
        if self._control is not None:
            self._control.add_routes(app.router)
        return app

    async def run(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        await serve(self.application(), listener)

    async def _show_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._page, content_type="text/html", charset="utf-8")

    async def _show_status(self, request: web.Request) -> web.Response:
        """With an invite token for who holds the control key."""
        trusted = self._control is not None and self._control.holds_key(request)
        return web.Response(text=self._status(with_token=trusted), content_type="application/json")

    async def _stream_status(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `data: <status>` at once, then whenever it differs from what was sent last."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        sent = ""
        while True:
            status = self._status()
            changed = status != sent
            await response.write(f"data: {status}\n\n".encode() if changed else b": keep-alive\n\n")
            sent = status
            await self._wait_for_news(sent)

    async def _wait_for_news(self, sent: str) -> None:
        """Until the status is another than `sent`, or silence has lasted long enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEEP_ALIVE_S):
                while self._status() == sent:
                    await self._changes.wait_for_ring()
                await asyncio.sleep(CHANGES_APART_S)

    def _status(self, *, with_token: bool = False) -> str:
        return json.dumps(as_json(self._snapshot(), with_token=with_token))
