"""What is compared: the whole model, stages of ours, llama.cpp's RPC. Each as a target that answers HTTP.

Every process that computes gets one core's worth of threads, as a machine of its own would. Links between
processes can be delayed while they run.
"""

import hashlib
import os
import random
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.load import Target
from bench.split.links import Delay, relayed, ring
from bench.split.rpc_plugin import build
from mesh_llm.core.ids import NodeId
from mesh_llm.core.stages import LayerRange
from mesh_llm.engine.child import EngineChild
from mesh_llm.engine.head.pipeline_head import PipelineHead
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.stage.settings import StageSettings
from mesh_llm.engine.stage.stage_worker import StageWorker
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.engine.whole.settings import EngineSettings
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.stageable import cuttable, embedding_scale, entrance_name, residual_name
from mesh_llm.models.library import LocalModel
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.stages.store import StageStore
from mesh_llm.planner.split_plan import Stages
from mesh_llm.planner.split_view import SplitView, SplitWish, StageHost, pair
from mesh_llm.planner.splitting import plan

KEY = f"{random.SystemRandom().getrandbits(128):032x}"
ROOM = 1 << 40


@dataclass(frozen=True, slots=True)
class Load:
    """What every candidate is made for."""

    context: int
    slots: int
    batch: int
    threads: int = 1
    gpu_layers: int = 0
    cards: bool = False
    """Whether each process sees one GPU only: the head the first, stage N the one after N others."""

    def environment(self, place: int) -> dict[str, str]:
        return {**os.environ, **({"CUDA_VISIBLE_DEVICES": str(place)} if self.cards else {})}


@dataclass(frozen=True, slots=True)
class Candidate:
    target: Target
    delay: Delay
    """Of its links, one way; whole models have none."""
    pids: tuple[int, ...]


def model_at(path: Path) -> LocalModel:
    return LocalModel(path.stem, (path,), path.stat().st_size, read_file_facts([path]), None, (), (None,))


def layers_of(model: LocalModel, stages: int) -> tuple[LayerRange, ...]:
    """As a mesh of equal nodes would deal them out, in the order of the ring, the head's last."""
    if stages == 1:
        return (LayerRange(0, model.facts.layers),)
    nodes = [NodeId(f"{number:064x}") for number in range(stages)]
    me, *others = (StageHost(node, ROOM) for node in nodes)
    near = {pair(one, other): 0.0 for one in nodes for other in nodes if one != other}
    how = cuttable([read_file_header(file) for file in model.files])
    planned = plan(how, SplitView(me, tuple(others), near), SplitWish(context=4096, stages=stages))
    assert isinstance(planned, Stages)
    return tuple(stage.layers for stage in planned.stages)


@asynccontextmanager
async def whole(settings: EngineSettings, load: Load) -> AsyncGenerator[Candidate]:
    settings = replace(
        settings, context_length=load.context, slots=load.slots, batch=load.batch, threads=load.threads
    )
    async with LlamaServer.start(settings, os.environ, lambda _: None) as server:
        endpoint = await server.wait_until_ready()
        target = Target("whole", endpoint.url, endpoint.api_key, settings.name)
        yield Candidate(target, Delay(), (server.pid,))


@asynccontextmanager
async def split(model: LocalModel, places: ModelPlaces, stages: int, load: Load) -> AsyncGenerator[Candidate]:
    """Real children, linked as the nodes of a mesh would link them, without the mesh."""
    headers = [read_file_header(file) for file in model.files]
    store, source = StageStore(places), FileRanges(model.files)
    delay = Delay()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        sockets, pids = [str(folder / "0")], list[int]()
        *remote, last = layers_of(model, stages)
        identity, entrance = identity_of(model), entrance_name(headers)
        for number, layers in enumerate(remote, start=1):
            kept = store.stage(identity, layers, is_head=False, parts=headers, source=source)
            file = await stack.enter_async_context(kept)
            settings = replace(stage_settings(model, file, layers, load, folder, number), entrance=entrance)
            starting = StageWorker.start(settings, load.environment(number), lambda _: None)
            worker = await stack.enter_async_context(starting)
            sockets.append((await worker.wait_until_ready()).socket_path)
            pids.append(worker.pid)
        kept = store.stage(identity, last, is_head=True, parts=headers, source=source)
        file = await stack.enter_async_context(kept)
        settings = _head_settings(model, file, embedding_scale(headers), len(remote), load, sockets[0])
        settings = replace(settings, entrance=entrance)
        head = await stack.enter_async_context(
            PipelineHead.start(settings, load.environment(0), lambda _: None, lambda _: None)
        )
        await head.wait_until_loaded()
        if remote:
            await stack.enter_async_context(ring(sockets, delay))
        endpoint = await head.wait_until_ready()
        name = f"{stages} stages"
        yield Candidate(Target(name, endpoint.url, KEY, model.name), delay, (head.pid, *pids))


@asynccontextmanager
async def over_rpc(
    settings: EngineSettings, layers: int, servers: int, load: Load, folder: Path
) -> AsyncGenerator[Candidate]:
    """llama-server with its last layers and the output on `servers` RPC servers, in equal shares."""
    plugin, delay = build(folder), Delay()
    settings = replace(
        settings,
        context_length=load.context,
        slots=load.slots,
        batch=load.batch,
        threads=load.threads,
        gpu_layers=(layers + 1) * servers // (servers + 1),
        device_shares=(1 / servers,) * servers,
    )
    async with AsyncExitStack() as stack:
        behind: list[int] = []
        pids: list[int] = []
        for _ in range(servers):
            server = await stack.enter_async_context(_rpc("rpc_server", plugin, [load.threads], b"{}"))
            told = await server.wait_until_ready()
            behind.append(await stack.enter_async_context(relayed(told["port"], delay)))
            pids.append(server.pid)
        engine = await stack.enter_async_context(_rpc("rpc_engine", plugin, behind, settings.to_line()))
        url = (await engine.wait_until_ready())["url"]
        target = Target(f"RPC, {servers + 1} parts", url, settings.api_key, settings.name)
        yield Candidate(target, delay, (engine.pid, *pids))


@asynccontextmanager
async def _rpc(module: str, plugin: Path, numbers: Sequence[int], line: bytes) -> AsyncGenerator[EngineChild]:
    told = " ".join(map(str, (plugin, *numbers)))
    environment = {**os.environ, "BENCH_RPC": told, "PYTHONPATH": str(Path(__file__).parents[2])}
    async with EngineChild.start(module, f"bench.split.{module}", line, environment, lambda _: None) as child:
        yield child


def identity_of(model: LocalModel) -> str:
    """Told apart well enough for a cache of this machine."""
    told = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in model.files]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def stage_settings(
    model: LocalModel, file: Path, layers: LayerRange, load: Load, folder: Path, number: int
) -> StageSettings:
    return StageSettings(
        model_path=str(file),
        name=model.name,
        layers=layers.count,
        residual=residual_name(layers.count),
        context_length=load.context,
        sequences=load.slots,
        batch=load.batch,
        kv_type="f16",
        threads=load.threads,
        gpu_layers=load.gpu_layers,
        device_shares=(),
        memory_bytes=0,
        socket_path=str(folder / str(number)),
    )


def _head_settings(
    model: LocalModel, file: Path, scale: float, stages: int, load: Load, socket: str
) -> HeadSettings:
    return HeadSettings(
        model_path=str(file),
        name=model.name,
        api_key=KEY,
        context_length=load.context,
        sequences=load.slots,
        batch=load.batch,
        kv_type="f16",
        threads=load.threads,
        gpu_layers=load.gpu_layers,
        device_shares=(),
        stages=stages,
        activations="f32",
        embedding_scale=scale,
        socket_path=socket,
    )
