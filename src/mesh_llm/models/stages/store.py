"""Stage files kept on this disk: by the model's identity and the layers, each locked while it is in use."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mesh_llm.core.progress import Report, ignore
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.ranges import RangeSource


class StageStore:
    def __init__(self, places: ModelPlaces) -> None:
        self._places = places

    @asynccontextmanager
    async def stage(
        self,
        identity: str,
        layers: LayerRange,
        *,
        is_head: bool,
        parts: Sequence[Header],
        source: RangeSource,
        report: Report = ignore,
    ) -> AsyncGenerator[Path]:
        """The file of a stage, written first where it is not here; nobody prunes it meanwhile.

        `identity`: 8 to 128 hex digits that stand for the model's files. Raises RequestRefused, ModelDamaged,
        DiskFull, and what the source raises.
        """
        raise NotImplementedError
        yield Path()
