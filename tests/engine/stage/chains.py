"""A split model as tests run it: real stages behind real sockets, the last layers in a plain child.

The test itself is the ring: it hands frames from each stage to the next.
"""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mesh_llm.engine.head.last_layers import find_embedding
from mesh_llm.engine.llama.context import ContextSettings
from mesh_llm.engine.ring.frames import Command, Frame, Hello, Operation, Shape, Step, encode
from mesh_llm.engine.ring.sockets import read_frame
from mesh_llm.engine.stage.settings import StageSettings
from mesh_llm.engine.stage.stage_worker import StageWorker
from tests.engine.llama import computing
from tests.engine.llama.computing import Computing
from tests.engine.stage.stage_files import lay_out_stage, layers_of

Cut = Callable[[Path, Path, int, int], Path]
"""Writes the file of layers [first, end) of a source."""

CONTEXT = ContextSettings(context=1024, batch=64, sequences=4, threads=1)


def stage_settings(file: Path, layers: int, socket_path: Path, **changes: Any) -> StageSettings:
    settings = StageSettings(
        model_path=str(file),
        name=f"stage of {layers}",
        layers=layers,
        residual=f"l_out-{layers - 1}",
        entrance=None,
        context_length=CONTEXT.context,
        sequences=CONTEXT.sequences,
        batch=CONTEXT.batch,
        kv_type=CONTEXT.kv_type,
        threads=CONTEXT.threads,
        gpu_layers=0,
        device_shares=(),
        memory_bytes=0,
        socket_path=str(socket_path),
    )
    return replace(settings, **changes)


@contextlib.asynccontextmanager
async def running_stage(settings: StageSettings) -> AsyncGenerator[StageWorker]:
    async with asyncio.timeout(60), StageWorker.start(settings, os.environ, lambda _: None) as worker:
        await worker.wait_until_ready()
        yield worker


class Ring:
    """One session with one stage."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shape: Shape) -> None:
        self._reader = reader
        self._writer = writer
        self.shape = shape

    async def pass_through(self, frame: Frame) -> Frame | None:
        self.send(encode(frame))
        return await self.receive()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> Frame | None:
        async with asyncio.timeout(30):
            return await read_frame(self._reader, self.shape)

    def end_sending(self) -> None:
        self._writer.write_eof()


@contextlib.asynccontextmanager
async def session(settings: StageSettings, width: int, *, greeted: bool = True) -> AsyncGenerator[Ring]:
    shape = Shape(width, settings.batch, settings.sequences, settings.context_length)
    reader, writer = await asyncio.open_unix_connection(settings.socket_path)
    ring = Ring(reader, writer, shape)
    try:
        if greeted:
            assert await ring.pass_through(Hello(shape)) == Hello(shape, layers=(settings.layers,))
        yield ring
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass
class Chain:
    """What the head does, without a scheduler."""

    stages: list[Ring]
    last: Computing
    scale: np.float32
    activations: type = np.float32
    number: int = 0
    stages_passed: int = 0

    async def decode(
        self, sequences: Sequence[int], positions: Sequence[int], tokens: Sequence[int], *commands: Command
    ) -> np.ndarray:
        """Logits of all rows, all layers having obeyed the commands first."""
        hidden = self.last("rows", list(tokens)) * self.scale
        step = await self._lap(sequences, positions, hidden, commands)
        return self.last("decode", list(sequences), list(positions), hidden=step.hidden.astype(np.float32))

    async def commands(self, *commands: Command) -> None:
        """A step without rows."""
        step = await self._lap([], [], np.zeros((0, self.stages[0].shape.width)), commands)
        assert len(step.hidden) == 0

    async def _lap(self, sequences, positions, hidden, commands) -> Step:
        rows = np.asarray(positions, np.int32), np.asarray(sequences, np.int32)
        frame: Frame | None = Step(self.number, commands, *rows, hidden.astype(self.activations))
        self.number += 1
        for stage in self.stages:
            assert isinstance(frame, Step), frame
            frame = await stage.pass_through(frame)
        assert isinstance(frame, Step), frame
        self.stages_passed = len(frame.microseconds)
        obey(self.last, commands)
        return frame


def obey(child: Computing, commands: Sequence[Command]) -> None:
    for command in commands:
        match command.operation:
            case Operation.CLEAR:
                child("memory", "clear")
            case Operation.DROP:
                child("memory", "drop", command.sequence, command.first, command.end)
            case Operation.COPY:
                child("memory", "copy", command.sequence, command.target, command.first, command.end)


@contextlib.asynccontextmanager
async def chain(
    source: Path,
    cuts: Sequence[int],
    folder: Path,
    *,
    scale: float = 1.0,
    activations: type = np.float32,
    entrance: str | None = None,
    cut: Cut = lay_out_stage,
) -> AsyncGenerator[Chain]:
    """The model cut before each of `cuts`; its last part in a plain child."""
    bounds = [0, *cuts, layers_of(source)]
    ranges = list(itertools.pairwise(bounds))
    files = [cut(source, folder / f"{first}-{end}.gguf", first, end) for first, end in ranges]
    table = find_embedding(source)
    async with contextlib.AsyncExitStack() as stack:
        rings = []
        for (first, end), file in zip(ranges[:-1], files[:-1], strict=True):
            settings = stage_settings(file, end - first, folder / f"{first}.sock", entrance=entrance)
            await stack.enter_async_context(running_stage(settings))
            rings.append(await stack.enter_async_context(session(settings, table.width)))
        last = stack.enter_context(computing.started())
        last("load", files[-1], replace(CONTEXT, entrance=entrance))
        last("table", table)
        yield Chain(rings, last, np.float32(scale), activations)


@contextlib.contextmanager
def whole(source: Path):
    with computing.started() as child:
        child("load", source, CONTEXT)
        yield child
