"""Who gives ranges of its files: what it serves, to how many, and nothing else."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.mesh.transport import Kind, Refused, Unreachable
from mesh_llm.splits.byte_messages import Held, Range, Want, decode_answer, encode
from mesh_llm.splits.byte_serving import STREAMS_OF_PEER_MAX
from mesh_llm.splits.peer_ranges import PartFile
from tests.splits.test_peer_ranges import DATA, MANIFEST, MODEL, fetching, only_file, server
from tests.splits.village import Villager, until, village


async def says(villager: Villager, to: Villager, *frames: bytes) -> list[bytes]:
    """On a stream of its own, ended at once. Raises Refused, Unreachable."""
    heard: list[bytes] = []
    async with villager.stream(to.id, Kind.BYTES) as stream:
        for frame in frames:
            await stream.send(frame)
        await stream.finish()
        while (frame := await stream.receive()) is not None:
            heard.append(frame)
    return heard


@pytest.mark.parametrize(
    "want",
    [
        Want(model="another", part=0),
        Want(model=MODEL, part=1),
        Want(model="../../etc/passwd", part=0),
        Want(model="/etc/passwd", part=0),
    ],
)
async def test_nothing_but_the_models_it_holds_is_served(tmp_path: Path, want: Want):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        with pytest.raises(Refused, match="does not hold"):
            await says(place[1], place[2], encode(want))


async def test_who_has_the_manifest_is_not_sent_it_again(tmp_path: Path):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        wants = [Want(model=MODEL, part=0, root=root) for root in (None, bytes(32), MANIFEST.root)]
        answers = [decode_answer((await says(place[1], place[2], encode(want)))[0]) for want in wants]
        assert [isinstance(answer, Held) and answer.manifest is None for answer in answers] == [
            False,
            False,
            True,
        ]


@pytest.mark.parametrize(
    "frame",
    [
        encode(Range(first=MANIFEST.count, count=1)),
        encode(Range(first=1, count=MANIFEST.count)),
        encode(Range(first=0, count=16_384)),
        b"\xc1",
        bytes(100_000),
    ],
)
async def test_a_range_beyond_the_file_and_nonsense_end_the_stream_and_are_counted(
    tmp_path: Path, frame: bytes
):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        with pytest.raises(Unreachable):
            await says(place[1], place[2], encode(Want(model=MODEL, part=0)), frame)
        await until(lambda: len(place[2].errors) == 1 and place[2].open == 0)


async def test_one_member_cannot_take_every_stream(tmp_path: Path):
    async with village(3) as place:
        serving = server(place[2], tmp_path, DATA)
        want = encode(Want(model=MODEL, part=0))

        async def hold(release: asyncio.Event) -> None:
            async with place[1].stream(place[2].id, Kind.BYTES) as stream:
                await stream.send(want)
                await release.wait()

        release = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(STREAMS_OF_PEER_MAX):
                tasks.create_task(hold(release))
            await until(lambda: place[2].open == STREAMS_OF_PEER_MAX)
            with pytest.raises(Refused, match="open already"):
                await says(place[1], place[2], want)
            assert await says(place[3], place[2], want)
            release.set()
        await until(lambda: place[2].open == 0)
        assert repr(serving) == "<ByteServer 0 streams>"


async def test_an_asker_that_reads_nothing_is_sent_no_more_than_a_window_holds(tmp_path: Path):
    data = Random(12).randbytes(64 * 1024 * 1024)
    async with village(2) as place:
        serving = server(place[2], tmp_path, data)
        async with place[1].stream(place[2].id, Kind.BYTES) as stream:
            await stream.send(encode(Want(model=MODEL, part=0)))
            await stream.receive()
            await stream.send(encode(Range(first=0, count=64)))
            await until(lambda: serving.bytes_sent > 0)
            before = -1
            while before != serving.bytes_sent:
                before = serving.bytes_sent
                await asyncio.sleep(0.2)
            assert serving.bytes_sent < len(data) // 2
        await until(lambda: place[2].open == 0)  # closing cancels


async def test_a_file_that_was_replaced_is_not_served_under_its_old_manifest(tmp_path: Path):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        async with fetching(place, parts=[PartFile(len(DATA), MANIFEST.root)]) as ranges:
            await ranges.read(0, 0, 10)
        only_file(tmp_path).write_bytes(bytes(len(DATA)))
        async with fetching(place, parts=[PartFile(len(DATA), MANIFEST.root)]) as ranges:
            with pytest.raises(DownloadFailed, match="something else under this name"):
                await ranges.read(0, 0, 10)


async def test_a_file_that_is_gone_is_refused_politely(tmp_path: Path):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        only_file(tmp_path).unlink()
        with pytest.raises(Refused, match="cannot read that file now"):
            await says(place[1], place[2], encode(Want(model=MODEL, part=0)))
