"""How a command reaches the node that runs in its home: over the console's port, with the control key.

Counterpart: `console/control.py`. The node says in HOME/running.json where it is.
"""

import json
from pathlib import Path
from typing import Any, cast

from mesh_llm.core.errors import MeshError
from mesh_llm.mesh.home.running import Running, find_running

ANSWER_SECONDS_MAX = 90.0
"""A dropped model may answer for 30 s more, and its engine takes a few to end."""

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""A status of a thousand nodes."""


class NoNodeRuns(MeshError):
    """A node must be started, or another home be named."""

    exit_code = 18


class NodeSaidNo(MeshError):
    """As the node put it, with the status that it gives the command."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


async def look(home: Path) -> dict[str, Any]:
    """The node's status. Without the key: what people paste elsewhere holds no invite."""
    return await _exchange(home, _running(home), "GET", "/api/status", None)


async def ask(home: Path, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Has the running node carry out a verb. Raises NoNodeRuns and NodeSaidNo."""
    return await _exchange(home, _running(home), "POST", path, fields)


def _running(home: Path) -> Running:
    running = find_running(home)
    if running is None:
        raise NoNodeRuns(
            f"No node runs in {home}. Start one with `mesh-llm --model NAME`, "
            "or name the home of the one that you mean with --home."
        )
    return running


async def _exchange(
    home: Path, running: Running, method: str, path: str, fields: dict[str, Any] | None
) -> dict[str, Any]:
    import aiohttp  # a quarter of a second, which those need not wait for who find no node

    url = f"http://127.0.0.1:{running.console_port}{path}"
    headers = {} if fields is None else {"Authorization": f"Bearer {running.control_key}"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.request(method, url, json=fields, headers=headers, allow_redirects=False) as response,
        ):
            body = await _bounded(response.content)
            return _read(response.status, body)
    except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
        raise NoNodeRuns(
            f"The node in {home} (process {running.pid}) does not answer on port {running.console_port} "
            f"({error or type(error).__name__}). If it is starting, try again; else stop and start it."
        ) from error


async def _bounded(content: Any) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ValueError(f"more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def _read(status: int, body: bytes) -> dict[str, Any]:
    """Raises NodeSaidNo for a refusal, ValueError for what no node of ours would say."""
    answer: object = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError("no JSON object")
    fields = cast("dict[str, Any]", answer)
    if status == 200:
        return fields
    match fields:
        case {"error": {"message": str(message), "exit_code": int(exit_code)}}:
            raise NodeSaidNo(message, exit_code)
        case _:
            raise ValueError(f"HTTP {status}")
