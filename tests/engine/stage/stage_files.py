"""Stage files for tests, laid out by the product."""

from pathlib import Path

from mesh_llm.core.stages import LayerRange
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.stages.layout import stage_layout


def layers_of(source: Path) -> int:
    header = read_file_header(source)
    return int(header.metadata[f"{header.metadata['general.architecture']}.block_count"])


def lay_out_stage(source: Path, path: Path, first: int, end: int) -> Path:
    """As the product cuts it, without its downloads: what a layout copies is read here."""
    header = read_file_header(source)
    layout = stage_layout([header], LayerRange(first, end), is_head=end == layers_of(source))
    with source.open("rb") as whole, path.open("wb") as stage:
        stage.truncate(layout.bytes)
        for literal in layout.literals:
            stage.seek(literal.target)
            stage.write(literal.data)
        for copy in layout.copies:
            whole.seek(copy.offset)
            stage.seek(copy.target)
            stage.write(whole.read(copy.length))
    return path
