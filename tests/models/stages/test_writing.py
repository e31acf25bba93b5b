"""Stage files as they are written: whole, resumed, with little memory, with few bytes from a hub."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mesh_llm.core.errors import DiskFull, DownloadFailed
from mesh_llm.core.progress import Progress
from mesh_llm.core.stages import LayerRange
from mesh_llm.models.disk import RESERVE_BYTES
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.hub import Hub
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.references import HubFile
from mesh_llm.models.stages import readings, writing
from mesh_llm.models.stages.composition import FileLayout
from mesh_llm.models.stages.hub_ranges import HubRanges
from mesh_llm.models.stages.layout import stage_layout
from mesh_llm.models.stages.ranges import FileRanges, RangeSource, read_remote_headers
from mesh_llm.models.stages.readings import PIECE_BYTES
from mesh_llm.models.stages.writing import MARK_BYTES, write_file
from mesh_llm.models.web import Web
from tests.models.conftest import Journey
from tests.models.hub_server import HubServer
from tests.models.stages.writing_child import piece
from tests.tiny_models import write_tiny_model

IDENTITY = "ab" * 32


class Counting:
    """A source that notes what was asked for, and may break off."""

    def __init__(self, source: RangeSource, breaks_at: int | None = None) -> None:
        self._source = source
        self.asked: list[tuple[int, int, int]] = []
        self._breaks_at = breaks_at

    async def read(self, part: int, offset: int, length: int) -> bytes:
        if self._breaks_at is not None and len(self.asked) >= self._breaks_at:
            raise DownloadFailed("the network is gone")
        self.asked.append((part, offset, length))
        return await self._source.read(part, offset, length)


def headers(files: Sequence[Path]) -> list[Header]:
    return [read_file_header(file) for file in files]


def expected(layout: FileLayout, files: Sequence[Path]) -> bytes:
    content = bytearray(layout.bytes)
    for literal in layout.literals:
        content[literal.target : literal.target + len(literal.data)] = literal.data
    for copy in layout.copies:
        data = files[copy.part].read_bytes()[copy.offset : copy.offset + copy.length]
        content[copy.target : copy.target + copy.length] = data
    return bytes(content)


def stages(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("stage*"))


async def write(
    layout: FileLayout, source: RangeSource, target: Path, **named: Callable[..., object]
) -> None:
    async with asyncio.timeout(60):
        await write_file(layout, source, target, IDENTITY, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("tensors_per_file", [0, 9])
async def test_a_stage_file_is_what_its_layout_says(tmp_path: Path, tensors_per_file: int) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "gemma3", tensors_per_file=tensors_per_file)
    layout = stage_layout(headers(files), LayerRange(3, 7), is_head=False)
    target = tmp_path / "stage.gguf"
    await write(layout, FileRanges(files), target)
    assert target.read_bytes() == expected(layout, files)
    assert stages(tmp_path) == ["stage.gguf"]


async def test_progress_never_goes_back_and_ends_with_all(tmp_path: Path) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "llama")
    layout = stage_layout(headers(files), LayerRange(2, 6), is_head=True)
    seen: list[Progress] = []
    await write(layout, FileRanges(files), tmp_path / "stage.gguf", report=seen.append)
    done = [each.done for each in seen]
    assert done == sorted(done) and done[-1] == seen[-1].total == layout.bytes


async def test_what_has_come_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "PIECE_BYTES", 4096)
    files = write_tiny_model(tmp_path / "m.gguf", "qwen3")
    layout = stage_layout(headers(files), LayerRange(1, 6), is_head=True)
    target = tmp_path / "stage.gguf"
    broken = Counting(FileRanges(files), breaks_at=30)
    with pytest.raises(DownloadFailed, match="network is gone"):
        await write(layout, broken, target)
    rest = Counting(FileRanges(files))
    await write(layout, rest, target)
    again = set(broken.asked) & set(rest.asked)
    assert len(broken.asked) == 30 and len(again) <= writing.PIECES_AHEAD
    assert target.read_bytes() == expected(layout, files)


async def test_a_beginning_of_another_model_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "PIECE_BYTES", 4096)
    files = write_tiny_model(tmp_path / "m.gguf", "qwen3")
    others = write_tiny_model(tmp_path / "other.gguf", "qwen3", seed=1)
    layout = stage_layout(headers(files), LayerRange(1, 6), is_head=True)
    target = tmp_path / "stage.gguf"
    with pytest.raises(DownloadFailed):
        await write_file(layout, Counting(FileRanges(others), breaks_at=30), target, "cd" * 32)
    await write(layout, FileRanges(files), target)
    assert target.read_bytes() == expected(layout, files)


async def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    files = write_tiny_model(tmp_path / "m.gguf", "llama")
    layout = stage_layout(headers(files), LayerRange(0, 2), is_head=False)
    source = Counting(FileRanges(files))
    with pytest.raises(DiskFull, match=r"stage\.gguf\.part needs"):
        await write(layout, source, tmp_path / "stage.gguf", free=lambda _: RESERVE_BYTES + 1000)
    assert not source.asked and not stages(tmp_path)


async def test_a_large_stage_takes_little_memory_and_survives_a_kill(tmp_path: Path) -> None:
    size, target = 1024**3, tmp_path / "stage.gguf"
    status, _ = await large(target, size, kill_at=3 * MARK_BYTES)
    assert status == -signal.SIGKILL
    status, told = await large(target, size)
    assert status == 0 and told["memory"] < 200_000_000
    assert told["first"] >= MARK_BYTES and told["bytes"] <= size - MARK_BYTES
    assert target.stat().st_size == size
    with target.open("rb") as file:
        for offset in range(0, size - 4, PIECE_BYTES):
            file.seek(4 + offset)
            assert file.read(12) == piece(offset, 12)


async def large(target: Path, size: int, kill_at: int = 0) -> tuple[int | None, dict[str, int]]:
    arguments = ("-m", "tests.models.stages.writing_child", str(target), str(size), str(kill_at))
    async with asyncio.timeout(90):
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await child.communicate()
    return child.returncode, json.loads(out or b"{}")


def _content(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_hub_sends_hardly_more_than_the_stage_was_given(
    hub: HubServer, places: ModelPlaces, journey: Journey, smollm2: Path, tmp_path: Path
) -> None:
    hub.files["org/repo/m.gguf"] = _content(smollm2)
    async with asyncio.timeout(60), Web(places) as web:
        source = await HubRanges.open(
            web, Hub(web, places.endpoint), [HubFile("org/repo", "m.gguf")], hub.url, journey.sleep
        )
        [header] = await read_remote_headers(source, source.parts)
        assert header.metadata == read_file_header(smollm2).metadata
        for layers, is_head in (
            (LayerRange(0, 12), False),
            (LayerRange(12, 20), False),
            (LayerRange(20, 30), True),
        ):
            layout = stage_layout([header], layers, is_head=is_head)
            before, requests = hub.bytes_sent, len(hub.requests())
            target = tmp_path / f"{layers.first}.gguf"
            await write_file(layout, source, target, IDENTITY)
            assert target.read_bytes() == expected(layout, [smollm2])
            assert hub.bytes_sent - before <= 1.05 * layout.assigned_bytes
            # Neighbours come with one request: some pieces of the header, single rows, then the layers.
            assert len(hub.requests()) - requests <= 8 + layout.bytes // PIECE_BYTES
