"""Writes a stage file from its layout and a source of ranges: a few MiB at a time, resumed after a kill."""

from pathlib import Path

from mesh_llm.core.progress import Report, ignore
from mesh_llm.models.disk import FreeBytes, free_bytes
from mesh_llm.models.stages.layout import StageLayout
from mesh_llm.models.stages.ranges import RangeSource


async def write_stage(
    layout: StageLayout,
    source: RangeSource,
    target: Path,
    identity: str,
    report: Report = ignore,
    free: FreeBytes = free_bytes,
) -> None:
    """Until `target` is whole and on disk. `identity`: of the model's files, so that a `.part` of others is
    not gone on with. Raises DiskFull, and what the source raises; what has arrived stays."""
    raise NotImplementedError
