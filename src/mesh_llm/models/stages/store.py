"""Stage files kept on this disk: by what stands for the model's files and the layers."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mesh_llm.core.progress import Report, ignore
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.stages.layout import stage_layout
from mesh_llm.models.stages.made_files import MadeFiles
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.models.threads import run_to_end


class StageStore(MadeFiles):
    def place(self, identity: str, layers: LayerRange, *, is_head: bool) -> Path:
        """Raises RequestRefused where `identity`, which others may have said, is none."""
        name = f"{layers.first}-{layers.end}{'-head' if is_head else ''}.gguf"
        return self.folder_of("stage", identity) / name

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
        target = self.place(identity, layers, is_head=is_head)
        layout = await run_to_end(stage_layout, parts, layers, is_head=is_head)
        async with self.file(target, layout, source, identity, report) as file:
            yield file
