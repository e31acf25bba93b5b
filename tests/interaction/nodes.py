"""A whole node as a user starts it: the `mesh-llm` command in a process of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

MODEL = "SmolLM2-135M-Instruct"
COMMAND = [sys.executable, "-P", "-m", "mesh_llm"]
BOUND_S = 60.0
STOP_S = 5.0
"""What is promised for stopping."""


class Node:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())  # noqa: TID251 - owned by started()

    @property
    def pid(self) -> int:
        return self.process.pid

    def descendants(self) -> list[psutil.Process]:
        """Its children and theirs. Not itself: psutil would take its exit status away from asyncio."""
        return psutil.Process(self.pid).children(recursive=True)

    async def wait_for(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line of the log that is it, now or later."""
        async with asyncio.timeout(BOUND_S), self._news:
            while True:
                for line in self.log:
                    if is_it(line):
                        return line
                assert not self._reading.done(), f"the node has ended: {self.log}"
                await self._news.wait()

    async def wait_for_message(self, part: str) -> dict[str, Any]:
        return await self.wait_for(lambda line: part in line["message"])

    async def url(self) -> str:
        return f"http://127.0.0.1:{(await self.wait_for(lambda line: 'api_port' in line))['api_port']}"

    async def invite(self) -> str:
        """The token that it prints once it can be reached."""
        return (await self.wait_for(lambda line: "invite" in line))["invite"]

    async def console_url(self) -> str:
        line = await self.wait_for(lambda line: "console_port" in line)
        return f"http://127.0.0.1:{line['console_port']}"

    async def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return await self.wait_for_end(STOP_S)

    async def wait_for_end(self, bound_s: float = BOUND_S) -> int:
        async with asyncio.timeout(bound_s):
            status = await self.process.wait()
            await self._reading
            return status

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                self.log.append(_parsed(line))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        return {"message": line.decode("utf-8", "replace").rstrip()}


def environment(store: Path, home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MESH_LLM", "HF_"))}
    return (
        kept | {"MESH_LLM_MODELS": str(store), "MESH_LLM_HOME": str(home), "HF_HOME": str(home / "hf")} | more
    )


@asynccontextmanager
async def started(store: Path, home: Path, *flags: str, **more: str) -> AsyncGenerator[Node]:
    """A node on free ports, killed at the end if it has not ended by itself."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--port", "0", "--console", "0", "--log-format", "json"),
        *flags,
        env=environment(store, home, **more),
        stderr=asyncio.subprocess.PIPE,
    )
    node = Node(process)
    try:
        yield node
    finally:
        if process.returncode is None:
            process.kill()
        await node.wait_for_end()


async def ended(store: Path, home: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    """A command run to its end: status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=environment(store, home, **more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BOUND_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def chat(url: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of one short answer."""
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4} | fields
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        return answer.status, await answer.json()


async def get(url: str) -> dict[str, Any]:
    """A JSON body, as soon as somebody listens there."""
    async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(url) as answer:
                    return await answer.json()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def chat_until_ready(url: str, **fields: Any) -> dict[str, Any]:
    """As a patient client does: asks again after 503 and refused connections, up to a bound."""
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                status, body = await chat(url, **fields)
            except aiohttp.ClientConnectionError:
                status, body = 503, {}
            if status == 200:
                return body
            assert status in (502, 503), body
            await asyncio.sleep(0.05)


async def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within the bound that is promised for a stop."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, STOP_S)
    return not alive
