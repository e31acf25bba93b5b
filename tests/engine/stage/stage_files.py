"""Stage files for tests: laid out by the product, or written with the gguf package where that refuses."""

import functools
import re
from pathlib import Path
from typing import Any

import gguf

from mesh_llm.core.stages import LayerRange
from mesh_llm.engine.llama.embedding import TableInFile
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.stages.layout import stage_layout

TOKEN_EMBEDDING = "token_embd.weight"


@functools.cache
def _read(source: Path) -> Any:
    """Seconds for a large vocabulary."""
    return gguf.GGUFReader(source)


def layers_of(source: Path) -> int:
    header = read_file_header(source)
    return int(header.metadata[f"{header.metadata['general.architecture']}.block_count"])


def embedding_of(source: Path) -> TableInFile:
    reader = _read(source)
    (table,) = [tensor for tensor in reader.tensors if tensor.name == TOKEN_EMBEDDING]
    width, rows = (int(size) for size in table.shape)
    return TableInFile(source, int(table.data_offset), int(table.tensor_type), width, rows)


def write_stage(source: Path, path: Path, first: int, end: int) -> Path:
    """Layers [first, end) renumbered from 0. A stage that is not the last has a vocabulary of one token."""
    reader = _read(source)
    architecture = reader.fields["general.architecture"].contents()
    layers = int(reader.fields[f"{architecture}.block_count"].contents())
    writer = gguf.GGUFWriter(path, architecture)
    is_last = end == layers
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if not is_last and (key.startswith("tokenizer.") or key == f"{architecture}.vocab_size"):
            continue
        value: Any = field.contents()
        if key == f"{architecture}.block_count":
            value = end - first
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            if key.startswith(f"{architecture}.") and len(value) == layers:
                value = value[first:end]
            writer.add_key_value(key, value, field.types[0], field.types[1])
        else:
            writer.add_key_value(key, value, field.types[0])
    if not is_last:
        writer.add_tokenizer_model("no_vocab")
        writer.add_uint32(f"{architecture}.vocab_size", 1)
    _add_tensors(reader, writer, first, end, is_last)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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


def _add_tensors(reader: Any, writer: Any, first: int, end: int, is_last: bool) -> None:
    for tensor in reader.tensors:
        name, data = tensor.name, tensor.data
        block = re.match(r"blk\.(\d+)\.(.*)", name)
        if block:
            if not first <= int(block[1]) < end:
                continue
            name = f"blk.{int(block[1]) - first}.{block[2]}"
        elif not is_last and name in (TOKEN_EMBEDDING, "output.weight"):
            data = data[:1]
        writer.add_tensor(name, data, raw_shape=data.shape, raw_dtype=tensor.tensor_type)
