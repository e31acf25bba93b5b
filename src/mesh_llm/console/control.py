"""The node's verbs over HTTP, for who holds the control key: the commands of `mesh-llm` on this machine.

The key is new at each start and lies in the home, readable by its owner only. Bodies and answers are JSON.
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh_llm.console.verbs import Verbs
from mesh_llm.core.errors import MeshError, RequestRefused
from mesh_llm.mesh.admission.invites import TTL_SECONDS_MAX

BODY_BYTES_MAX = 64 * 1024
"""A token is the longest thing that is sent here; the mesh's own have at most 33,000 characters."""

Fields = dict[str, Any]


class Control:
    def __init__(self, verbs: Verbs, key: str) -> None:
        self._verbs = verbs
        self._key = key

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/invite", self._guarded(self._invite))
        router.add_post("/api/invite/revoke", self._guarded(self._revoke))
        router.add_post("/api/kick", self._guarded(self._kick))
        router.add_post("/api/drop", self._guarded(self._drop))

    def holds_key(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._key.encode())
        return scheme.lower() == "bearer" and same

    def _guarded(self, verb: Callable[[Fields], Awaitable[Fields]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if not self.holds_key(request):
                    raise RequestRefused(
                        "This needs the control key of the running node: use the mesh-llm command with the "
                        "node's --home, or send the `control_key` of its running.json as a bearer token.",
                        http_status=401,
                        code="no_control_key",
                    )
                return web.json_response(await verb(await _body(request)))
            except MeshError as error:
                return _refusal(error)

        return handle

    async def _invite(self, fields: Fields) -> Fields:
        once, ttl_s = fields.get("once", False), fields.get("ttl_s")
        if not isinstance(once, bool):
            raise RequestRefused("`once` must be true or false.", parameter="once")
        if ttl_s is not None and not (type(ttl_s) is int and 1 <= ttl_s <= TTL_SECONDS_MAX):
            raise RequestRefused(
                f"`ttl_s` must be whole seconds from 1 to {TTL_SECONDS_MAX}.", parameter="ttl_s"
            )
        return {"token": await self._verbs.invite(once=once, ttl_s=ttl_s)}

    async def _revoke(self, fields: Fields) -> Fields:
        invite = _text(fields, "invite")
        await self._verbs.revoke(invite)
        return {"revoked": invite}

    async def _kick(self, fields: Fields) -> Fields:
        return {"kicked": await self._verbs.kick(_text(fields, "node"))}

    async def _drop(self, fields: Fields) -> Fields:
        return {"dropped": await self._verbs.drop(_text(fields, "model"))}


async def _body(request: web.Request) -> Fields:
    """The fields of a bounded JSON object. Raises RequestRefused."""
    data = bytearray()
    while chunk := await request.content.read(BODY_BYTES_MAX):
        data += chunk
        if len(data) > BODY_BYTES_MAX:
            raise RequestRefused(
                f"The body is larger than {BODY_BYTES_MAX} bytes.", http_status=413, code="body_too_large"
            )
    try:
        fields = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise RequestRefused("The body must be a JSON object.", code="invalid_json")
    return cast("Fields", fields)


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RequestRefused(f"`{name}` must be given as text.", parameter=name)
    return value.strip()


def _refusal(error: MeshError) -> web.Response:
    told = {"message": str(error), "kind": error.kind, "exit_code": error.exit_code}
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
    return web.json_response({"error": told}, status=error.http_status, headers=headers)
