"""What this node gives to stages of others: memory within its bounds, their files, a process each.

`splits.hosting` asks; who leads what is read from the claims that all see, and the rule is `splits.leases`.
"""

import logging
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from mesh_llm.core.errors import DoesNotFit, RequestRefused, Unavailable
from mesh_llm.core.ids import NodeId
from mesh_llm.core.progress import Progress
from mesh_llm.core.quantities import human_bytes
from mesh_llm.core.stages import LayerRange, SplitClaim
from mesh_llm.engine.stage.settings import StageSettings
from mesh_llm.engine.stage.stage_worker import StageWorker
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.stageable import cuttable, entrance_name, residual_name
from mesh_llm.models.stages.ranges import RangeSource, SourcePart, read_remote_headers
from mesh_llm.models.stages.store import StageStore
from mesh_llm.models.threads import run_to_end
from mesh_llm.node.guests import Guests, wish_of
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.split_sources import cache_key, identity_of
from mesh_llm.planner.capacity import shares
from mesh_llm.planner.fit import fit
from mesh_llm.planner.memory import KV_TYPES
from mesh_llm.planner.stage_fit import predict_stage
from mesh_llm.splits.leases import Lease, Leases
from mesh_llm.splits.messages import Assign
from mesh_llm.splits.tenancy import Worker

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 10

SOCKET = "ring"
"""In a folder of its own under the system's temporary one: a unix socket's path has some 100 characters."""

Ranges = Callable[[Assign], AbstractAsyncContextManager[RangeSource]]
"""Where the bytes of a leader's model are had: this disk, its holders, its origin."""


class NodeLandlord:
    """`splits.hosting.Landlord`."""

    def __init__(
        self,
        models: OwnModels,
        store: StageStore,
        leases: Leases,
        claims: Callable[[str], Mapping[NodeId, SplitClaim]],
        ranges: Ranges,
        guests: Guests,
        environment: Mapping[str, str],
    ) -> None:
        """`claims`: of a model, of all living members and of this node."""
        self._models = models
        self._store = store
        self._leases = leases
        self._claims = claims
        self._ranges = ranges
        self._guests = guests
        self._environment = environment

    @contextmanager
    def admit(self, leader: NodeId, assign: Assign) -> Generator[None]:
        if assign.kv_type not in KV_TYPES:
            raise RequestRefused(f"this node knows no KV cache of type {assign.kv_type}")
        if assign.model != identity_of(assign.parts):
            raise RequestRefused("these files are not of that model: the leader should run the same version")
        if not all(part.sha256 or part.root for part in assign.parts):
            raise RequestRefused(
                "nothing is said of what these files hold, neither SHA-256 nor chunks, so any bytes could be"
                " theirs: the leader should run the same version"
            )
        lease = Lease(assign.model, leader, assign.memory_bytes)
        refusal = self._leases.ask(lease, self._models.room_bytes, self._claims(assign.model))
        if refusal is not None:
            raise Unavailable(refusal, retry_after_s=RETRY_AFTER_S)
        logger.info("%s of %s are held for another node", assign.layers, assign.name)
        try:
            yield
        finally:
            self._leases.end(lease)

    def memory_bytes_free(self) -> int:
        return max(0, self._models.room_bytes - self._leases.bytes_lent)

    @asynccontextmanager
    async def obtain(self, assign: Assign, on_fetched: Callable[[float], None]) -> AsyncGenerator[Path]:
        def report(progress: Progress) -> None:
            if progress.total:
                on_fetched(progress.done / progress.total)

        async with AsyncExitStack() as kept:
            async with self._ranges(assign) as ranges:
                parts = [SourcePart(part.name, part.size) for part in assign.parts]
                headers = await read_remote_headers(ranges, parts)
                self._check(headers, assign)
                held = self._store.stage(
                    cache_key(assign.model, assign.parts),
                    assign.layers,
                    is_head=assign.whole,
                    parts=headers,
                    source=ranges,
                    report=report,
                )
                file = await kept.enter_async_context(held)
            yield file

    def launch(
        self, assign: Assign, file: Path, on_loaded: Callable[[float], None]
    ) -> AbstractAsyncContextManager[Worker]:
        if assign.whole:
            return self._guests.launch(assign, file, on_loaded)
        return self._launch_stage(assign, file, on_loaded)

    @asynccontextmanager
    async def _launch_stage(
        self, assign: Assign, file: Path, on_loaded: Callable[[float], None]
    ) -> AsyncGenerator[StageWorker]:
        machine, devices = self._models.machine, self._models.all_devices
        header = await run_to_end(read_file_header, file)
        with tempfile.TemporaryDirectory(prefix="mesh-llm-") as folder:
            settings = StageSettings(
                model_path=str(file),
                name=assign.name,
                layers=assign.layers.count,
                residual=residual_name(assign.layers.count),
                context_length=assign.context,
                sequences=assign.sequences,
                batch=assign.batch,
                kv_type=assign.kv_type,
                threads=machine.cores,
                gpu_layers=-1 if machine.devices else 0,
                device_shares=shares(devices, machine.devices) if machine.devices else (),
                memory_bytes=0 if machine.devices else assign.memory_bytes,
                socket_path=str(Path(folder) / SOCKET),
                entrance=entrance_name([header]),
            )
            async with StageWorker.start(settings, self._environment, on_loaded) as worker:
                yield worker

    def _check(self, headers: Sequence[Header], assign: Assign) -> None:
        """That the leader did not promise less than the stage takes."""
        model = cuttable(headers)
        if assign.whole:
            if assign.layers != LayerRange(0, model.facts.layers):
                raise RequestRefused(f"{assign.layers} are not all of {assign.name}")
            fit(model.facts, assign.memory_bytes, wish_of(assign))
            return
        need = predict_stage(
            model,
            assign.layers,
            is_head=False,
            context=assign.context,
            kv_type=assign.kv_type,
            sequences=assign.sequences,
            batch=assign.batch,
        ).total
        if need > assign.memory_bytes:
            raise DoesNotFit(
                f"{assign.layers} of {assign.name} take {human_bytes(need)}, and"
                f" {human_bytes(assign.memory_bytes)} were asked for: the leader should run the same version."
            )
