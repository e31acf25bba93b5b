"""Ranges of local files, and headers of files that are elsewhere."""

from pathlib import Path

import pytest

from mesh_llm.core.errors import DownloadFailed, ModelDamaged
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.stages.ranges import READ_BYTES_MAX, FileRanges, SourcePart, read_remote_headers
from tests.models.gguf.gguf_bytes import STRING, U32, U64, Tensor, array, gguf_bytes, scalar
from tests.tiny_models import write_tiny_model


class Noted:
    """Bytes in memory; notes what was asked for."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.asked: list[tuple[int, int, int]] = []

    async def read(self, part: int, offset: int, length: int) -> bytes:
        self.asked.append((part, offset, length))
        return self._parts[part][offset : offset + length]


def part(content: bytes, name: str = "m.gguf") -> SourcePart:
    return SourcePart(name, len(content))


async def test_a_local_range_is_exactly_these_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes(range(200)))
    source = FileRanges([tmp_path / "other", file])
    assert await source.read(1, 10, 5) == bytes(range(10, 15))
    assert await source.read(1, 0, 200) == bytes(range(200))
    for offset, length in ((0, 201), (200, 1), (-1, 2), (0, 0), (0, READ_BYTES_MAX + 1)):
        with pytest.raises(ValueError, match="bytes"):
            await source.read(1, offset, length)
    with pytest.raises(ModelDamaged, match="other cannot be read"):
        await source.read(0, 0, 1)


@pytest.mark.parametrize("tensors_per_file", [0, 9])
async def test_a_remote_header_is_what_a_local_one_is(tmp_path: Path, tensors_per_file: int) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "llama", tensors_per_file=tensors_per_file)
    contents = [file.read_bytes() for file in files]
    source = Noted(*contents)
    found = await read_remote_headers(
        source, [part(content, str(file)) for content, file in zip(contents, files, strict=True)]
    )
    assert found == [read_file_header(file) for file in files]
    assert len(source.asked) == len(files)


async def test_a_long_header_is_read_in_few_requests_and_its_weights_are_not() -> None:
    words = array(STRING, ["word" * 20] * 100_000)
    content = gguf_bytes(
        [("general.architecture", scalar(STRING, "llama")), ("tokenizer.ggml.tokens", words)],
        [Tensor("w", (10_000_000,))],
        data_bytes=40_000_000,
    )
    header_bytes = len(content) - 40_000_000
    source = Noted(content)
    [header] = await read_remote_headers(source, [part(content)])
    assert header.tensors[0].elements == 10_000_000 and header_bytes > 8_000_000
    assert len(source.asked) <= 5
    assert sum(length for _, _, length in source.asked) <= 2 * header_bytes
    assert len({offset for _, offset, _ in source.asked}) == len(source.asked)


async def test_a_header_without_end_is_refused() -> None:
    content = gguf_bytes([("k", array(U64, [], 12_000_000)), ("after", scalar(U32, 1))])
    source = Noted(content + bytes(70_000_000))
    with pytest.raises(ModelDamaged, match="64 MiB"):
        await read_remote_headers(source, [SourcePart("m.gguf", 500_000_000)])
    assert sum(length for _, _, length in source.asked) < 70_000_000


async def test_a_source_that_gives_less_is_not_believed() -> None:
    content = gguf_bytes([("k", scalar(U32, 1))])
    with pytest.raises(DownloadFailed, match=f"gave {len(content)} bytes"):
        await read_remote_headers(Noted(content), [SourcePart("m.gguf", len(content) + 1)])


async def test_what_is_no_model_is_told_by_its_name() -> None:
    with pytest.raises(ModelDamaged, match=r"m\.gguf is a web page"):
        await read_remote_headers(Noted(b"<html>" * 100), [SourcePart("m.gguf", 600)])
