"""Heads and whole engines as tests run them, a ring that the test bridges itself, and a client for both."""

import asyncio
import contextlib
import itertools
import json
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from mesh_llm.core.serving import Endpoint
from mesh_llm.engine.head.pipeline_head import PipelineHead
from mesh_llm.engine.head.ring_state import RingState
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.stage.settings import StageSettings
from mesh_llm.engine.stage.stage_worker import StageWorker
from mesh_llm.engine.whole.llama_server import LlamaServer
from tests.engine.settings_for_tests import settings_for
from tests.engine.stage.chains import stage_settings
from tests.engine.stage.stage_files import lay_out_stage, layers_of

KEY = "key-of-the-engine"
SMALL = HeadSettings(
    model_path="",
    name="test-model",
    api_key=KEY,
    context_length=2048,
    sequences=4,
    batch=256,
    kv_type="f16",
    threads=2,
    gpu_layers=0,
    device_shares=(),
    stages=0,
    activations="f32",
    embedding_scale=1.0,
    socket_path="",
)

T = TypeVar("T")


@contextlib.contextmanager
def kept(make: Callable[[], AbstractAsyncContextManager[T]]) -> Generator[T]:
    """What an asynchronous context gives, for fixtures that outlive the loop of one test."""
    entered: list[T] = []
    failed: list[BaseException] = []
    told, leave = threading.Event(), threading.Event()

    async def live() -> None:
        async with make() as value:
            entered.append(value)
            told.set()
            await asyncio.to_thread(leave.wait)

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failed.append(error)
        told.set()

    thread = threading.Thread(target=run)
    thread.start()
    told.wait(60)
    try:
        if failed:
            raise failed[0]
        yield entered[0]
    finally:
        leave.set()
        thread.join(20)


@contextlib.asynccontextmanager
async def whole_engine(model: Path, **changes: Any) -> AsyncGenerator[Endpoint]:
    settings = settings_for(model, **{"embeddings": False, "pooling": None} | changes)
    async with (
        asyncio.timeout(600),
        LlamaServer.start(settings, os.environ, lambda _: None) as server,
    ):
        yield await server.wait_until_ready()


@contextlib.asynccontextmanager
async def lone_head(model: Path, **changes: Any) -> AsyncGenerator[Endpoint]:
    """A head that holds all layers."""
    settings = replace(SMALL, model_path=str(model), **changes)
    async with (
        asyncio.timeout(600),
        PipelineHead.start(settings, os.environ, lambda _: None, lambda _: None) as head,
    ):
        yield await head.wait_until_ready()


@dataclass
class SplitModel:
    """Stages and a head, loaded; `ring` connects them."""

    head: PipelineHead
    endpoint: Endpoint
    workers: list[StageWorker]
    sockets: list[str]
    """In the order of the ring, the head's first."""
    states: list[RingState] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, state: RingState) -> None:
        self.states.append(state)
        self.changed.set()

    async def wait_for_states(self, count: int) -> RingState:
        async with asyncio.timeout(60):
            while len(self.states) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.states[count - 1]

    @contextlib.asynccontextmanager
    async def ring(
        self, sockets: Sequence[str] | None = None, seconds_per_byte: float = 0.0
    ) -> AsyncGenerator[None]:
        """Bytes go from each to the next, as nodes would carry them; the end of one is the end of all."""
        async with contextlib.AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(_connection(path)) for path in sockets or self.sockets]
            async with asyncio.TaskGroup() as tasks:
                writers = [writer for _, writer in ends]
                pumps = [
                    tasks.create_task(_pump(source[0], target[1], writers, seconds_per_byte))
                    for source, target in itertools.pairwise([*ends, ends[0]])
                ]
                yield
                for pump in pumps:
                    pump.cancel()


@contextlib.asynccontextmanager
async def _connection(path: str) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    all_writers: list[asyncio.StreamWriter],
    seconds_per_byte: float,
) -> None:
    try:
        while data := await reader.read(1 << 16):
            await asyncio.sleep(len(data) * seconds_per_byte)  # a link of that bandwidth
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    for each in all_writers:
        each.close()


@contextlib.asynccontextmanager
async def split_model(
    source: Path,
    cuts: Sequence[int],
    folder: Path,
    scale: float = 1.0,
    *,
    context_length: int = 2048,
    batch: int = 256,
    seconds_max: float = 600,
    **changes: Any,
) -> AsyncGenerator[SplitModel]:
    """Cut before each of `cuts`, every part in its own process. `changes` are of the head's settings."""
    layers = layers_of(source)
    ranges = list(itertools.pairwise([0, *cuts, layers]))
    files = [lay_out_stage(source, folder / f"{first}-{end}.gguf", first, end) for first, end in ranges]
    common = {"context_length": context_length, "sequences": 4, "batch": batch, "threads": 1}
    stages = [
        stage_settings(file, end - first, folder / f"{first}.sock", **common)
        for (first, end), file in zip(ranges[:-1], files[:-1], strict=True)
    ]
    settings = replace(
        SMALL,
        model_path=str(files[-1]),
        stages=len(stages),
        embedding_scale=scale,
        socket_path=str(folder / "head.sock"),
        context_length=context_length,
        batch=batch,
        threads=1,
        **changes,
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(seconds_max))
        workers = [await stack.enter_async_context(_worker(stage)) for stage in stages]
        heard: list[SplitModel] = []
        head = await stack.enter_async_context(
            PipelineHead.start(settings, os.environ, lambda _: None, lambda state: heard[0].hear(state))
        )
        sockets = [settings.socket_path, *(stage.socket_path for stage in stages)]
        model = SplitModel(head, Endpoint("", KEY), workers, sockets)
        heard.append(model)
        model.endpoint = await head.wait_until_loaded()
        yield model


@contextlib.asynccontextmanager
async def _worker(settings: StageSettings) -> AsyncGenerator[StageWorker]:
    async with StageWorker.start(settings, os.environ, lambda _: None) as worker:
        await worker.wait_until_ready()
        yield worker


@dataclass
class Client:
    endpoint: Endpoint
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(self.endpoint.url + path, json=body) as response:
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.endpoint.url + path) as response:
            return response.status, json.loads(await response.read())

    async def complete(self, prompt: Any, **fields: Any) -> Any:
        status, answer = await self.post("/v1/completions", {"prompt": prompt, **fields})
        assert status == 200, answer
        return answer

    async def events(self, path: str, body: Any) -> AsyncIterator[Any]:
        """Of a stream, without its `[DONE]`."""
        async with self.session.post(self.endpoint.url + path, json=body | {"stream": True}) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    yield json.loads(line.removeprefix(b"data: "))

    async def text(self, prompt: Any, **fields: Any) -> str:
        return (await self.complete(prompt, **fields))["choices"][0]["text"]


@contextlib.asynccontextmanager
async def client(endpoint: Endpoint) -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    async with (
        asyncio.timeout(900),
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        yield Client(endpoint, session)


async def together(*work: Awaitable[T]) -> list[T]:
    return list(await asyncio.gather(*work))
