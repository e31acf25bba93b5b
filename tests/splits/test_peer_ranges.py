"""Ranges of files from members, over real streams: who serves (byte_serving.py) and who fetches."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import Kind, PeerError, Stream
from mesh_llm.models.records import Records
from mesh_llm.models.stages.chunks import CHUNK_BYTES_MIN, Manifest
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.splits import byte_messages
from mesh_llm.splits.byte_messages import Held, Want, decode_want, encode, sign_manifest
from mesh_llm.splits.byte_serving import ByteServer
from mesh_llm.splits.part_ranges import RUN_BYTES
from mesh_llm.splits.peer_ranges import PartFile, PeerRanges
from tests.mesh.members import key
from tests.models.stages.test_chunks import manifest_of
from tests.splits.village import Answer, Village, Villager, until, village

MODEL = "sha256:5df1"
DATA = Random(5).randbytes(6_000_000)
MANIFEST = manifest_of(DATA)


def server(villager: Villager, folder: Path, *files: bytes, model: str = MODEL) -> ByteServer:
    """The villager holds these files of a model."""
    paths: list[Path] = []
    for number, data in enumerate(files):
        paths.append(folder / f"{villager.id[:6]}-{number}.gguf")
        paths[-1].write_bytes(data)
    held = {model: paths}
    serving = ByteServer(villager.key, held.get, Manifests(Records(folder / "notes", folder)))
    villager.answers[Kind.BYTES] = serving.answer
    return serving


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.gguf")
    return path


@asynccontextmanager
async def fetching(
    place: Village,
    holders: Sequence[int] = (2,),
    parts: Sequence[PartFile] = (PartFile(len(DATA)),),
    fallback: "Origin | None" = None,
    is_member: Callable[[NodeId], bool] | None = None,
    model: str = MODEL,
) -> AsyncGenerator[PeerRanges]:
    """The first villager fetches from these."""
    nodes = [key(number).node for number in holders]
    opened = PeerRanges.open(
        model, parts, lambda: nodes, place[1].stream, is_member or place.is_member, fallback=fallback
    )
    async with opened as ranges:
        yield ranges


class Origin:
    """Another source, which counts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int, int]] = []

    async def read(self, part: int, offset: int, length: int) -> bytes:
        self.asked.append((part, offset, length))
        return self.data[offset : offset + length]


async def test_ranges_of_a_members_file_come_as_they_lie_in_it(tmp_path: Path):
    chance = Random(3)
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        async with fetching(place) as ranges:
            for _ in range(20):
                offset = chance.randrange(len(DATA))
                length = chance.randrange(1, len(DATA) - offset + 1)
                assert await ranges.read(0, offset, length) == DATA[offset : offset + length]
            assert await ranges.read(0, len(DATA) - 1, 1) == DATA[-1:]
        await until(lambda: place[2].open == 0)


async def test_each_file_of_a_set_is_known_by_its_number(tmp_path: Path):
    second = Random(6).randbytes(100_000)
    async with village(2) as place:
        server(place[2], tmp_path, DATA, second)
        async with fetching(place, parts=[PartFile(len(DATA)), PartFile(len(second))]) as ranges:
            one, other = await asyncio.gather(ranges.read(0, 10, 99), ranges.read(1, 70_000, 30_000))
    assert (one, other) == (DATA[10:109], second[70_000:])


async def test_what_neighbouring_ranges_share_is_fetched_once(tmp_path: Path):
    async with village(2) as place:
        serving = server(place[2], tmp_path, DATA)
        async with fetching(place) as ranges:
            step = CHUNK_BYTES_MIN // 3
            got = [await ranges.read(0, start, step) for start in range(0, 300 * step // 4, step)]
            assert b"".join(got) == DATA[: len(b"".join(got))]
            assert ranges.bytes_fetched <= len(b"".join(got)) + CHUNK_BYTES_MIN
            assert serving.bytes_sent == ranges.bytes_fetched


async def test_many_readers_at_once_share_what_is_under_way(tmp_path: Path):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        async with fetching(place) as ranges, asyncio.TaskGroup() as tasks:
            reads = [
                tasks.create_task(ranges.read(0, start, 100_000)) for start in range(0, 5_000_000, 50_000)
            ]
        assert all(read.result() == DATA[n * 50_000 : n * 50_000 + 100_000] for n, read in enumerate(reads))
        assert ranges.bytes_fetched <= 5_050_000 + CHUNK_BYTES_MIN


async def test_scattered_tensors_cost_five_percent_more_at_most(tmp_path: Path):
    """As layers lie in a file: a stretch of many chunks, then a gap, then the next."""
    layer, gap = 25 * CHUNK_BYTES_MIN + 1234, 3 * CHUNK_BYTES_MIN + 55
    wanted = [(start, layer) for start in range(gap, len(DATA) - layer, layer + gap)]
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        async with fetching(place) as ranges:
            for offset, length in wanted:
                for start in range(offset, offset + length, 200_000):
                    await ranges.read(0, start, min(200_000, offset + length - start))
            assert ranges.bytes_fetched / sum(length for _, length in wanted) <= 1.05


def after(barrier: asyncio.Barrier, serving: ByteServer) -> Answer:
    async def answer(stream: Stream) -> None:
        await barrier.wait()
        await serving.answer(stream)

    return answer


async def test_several_holders_share_the_work(tmp_path: Path):
    data = Random(9).randbytes(10 * RUN_BYTES)
    async with village(3) as place:
        servers = [server(place[number], tmp_path, data) for number in (2, 3)]
        together = asyncio.Barrier(2)
        for number, serving in zip((2, 3), servers, strict=True):
            place[number].answers[Kind.BYTES] = after(together, serving)
        async with fetching(place, [2, 3], [PartFile(len(data))]) as ranges:
            assert await ranges.read(0, 5, len(data) - 5) == data[5:]
        assert all(serving.bytes_sent >= RUN_BYTES for serving in servers)
        assert sum(serving.bytes_sent for serving in servers) == len(data)


def liar(
    villager: Villager, change: Callable[[bytearray], None], manifest: Manifest = MANIFEST
) -> list[Want]:
    """Holds the file, says so truly, and sends bytes that were changed."""
    asked: list[Want] = []

    async def answer(stream: Stream) -> None:
        asked.append(decode_want(await stream.receive() or b""))
        await stream.send(encode(Held(manifest=sign_manifest(villager.key, MODEL, 0, manifest))))
        while (frame := await stream.receive()) is not None:
            wanted = byte_messages.decode_range(frame)
            offset, length = manifest.extent(wanted.chunks)
            data = bytearray(DATA[offset : offset + length])
            change(data)
            for start in range(0, len(data), 1 << 20):
                await stream.send(bytes(data[start : start + (1 << 20)]))

    villager.answers[Kind.BYTES] = answer
    return asked


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 0x10


def cut(data: bytearray) -> None:
    del data[-1:]
    data[:0] = b"x"


async def test_a_flipped_byte_is_refused_fetched_elsewhere_and_its_sender_never_asked_again(tmp_path: Path):
    async with village(3) as place:
        serving = server(place[3], tmp_path, DATA)
        asked = liar(place[2], flip)

        async def late(stream: Stream) -> None:
            await until(lambda: bool(place[1].errors))
            await serving.answer(stream)

        place[3].answers[Kind.BYTES] = late
        async with fetching(place, [2, 3]) as ranges:
            assert await ranges.read(0, 0, len(DATA)) == DATA
            assert "not what the manifest says" in ranges.given_up[place[2].id]
            assert await ranges.read(0, 1_000_000, 5_000_000) == DATA[1_000_000:]
            assert len(asked) == 1
        assert serving.bytes_sent >= len(DATA)
        assert len(place[1].errors) == 1  # counted against who lied


@pytest.mark.parametrize(
    "change", [flip, cut, lambda data: data.extend(b"more")], ids=["flip", "cut", "more"]
)
async def test_a_lone_liar_is_found_out_and_the_origin_is_asked(change: Callable[[bytearray], None]):
    origin = Origin(DATA)
    async with village(2) as place:
        liar(place[2], change)
        async with fetching(place, fallback=origin) as ranges:
            assert await ranges.read(0, 100, 70_000) == DATA[100:70_100]
            assert await ranges.read(0, 0, 5) == DATA[:5]
    assert origin.asked == [(0, 100, 70_000), (0, 0, 5)]


async def test_without_another_source_it_says_what_is_wrong_and_what_helps():
    async with village(2) as place:
        liar(place[2], flip)
        async with fetching(place) as ranges:
            with pytest.raises(
                DownloadFailed, match=r"file 1 of sha256.*not what the manifest.*Start a node"
            ):
                await ranges.read(0, 100, 70_000)
        async with fetching(place, holders=()) as ranges:
            with pytest.raises(DownloadFailed, match="no member holds it whole"):
                await ranges.read(0, 100, 70_000)


async def test_a_holder_that_dies_midway_costs_nothing_but_time(tmp_path: Path):
    data = Random(11).randbytes(12 * RUN_BYTES)
    async with village(3) as place:
        dying = server(place[2], tmp_path, data)
        server(place[3], tmp_path, data)
        async with fetching(place, [2, 3], [PartFile(len(data))]) as ranges, asyncio.TaskGroup() as tasks:
            read = tasks.create_task(ranges.read(0, 0, len(data)))
            await until(lambda: dying.bytes_sent > 0)
            await place[2].leave()
            assert await read == data


async def test_when_all_holders_are_gone_the_origin_gives_the_rest(tmp_path: Path):
    origin = Origin(DATA)
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        async with fetching(place, fallback=origin) as ranges:
            assert await ranges.read(0, 0, 10) == DATA[:10]
            await place[2].leave()
            assert await ranges.read(0, 3_000_000, 10) == DATA[3_000_000:3_000_010]
    assert origin.asked == [(0, 3_000_000, 10)]


async def test_a_holder_that_comes_later_gives_the_rest(tmp_path: Path):
    origin, known = Origin(DATA), list[NodeId]()
    async with village(2) as place:
        serving = server(place[2], tmp_path, DATA)
        parts = [PartFile(len(DATA))]
        opened = PeerRanges.open(MODEL, parts, lambda: known, place[1].stream, place.is_member, origin)
        async with opened as ranges:
            assert await ranges.read(0, 0, 10) == DATA[:10]
            known.append(place[2].id)
            assert await ranges.read(0, 3_000_000, 10) == DATA[3_000_000:3_000_010]
    assert origin.asked == [(0, 0, 10)]
    assert serving.bytes_sent >= 10


async def test_why_a_holder_is_asked_no_more_and_whose_word_is_taken_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with village(3) as place:
        server(place[2], tmp_path, DATA, model="another")
        server(place[3], tmp_path, DATA)
        with caplog.at_level("INFO", "mesh_llm.splits"):
            async with fetching(place, [2, 3]) as ranges:
                assert await ranges.read(0, 0, 10) == DATA[:10]
                await until(lambda: place[2].id in ranges.given_up)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert f"{place[2].id[:10]} is not asked for bytes of {MODEL} any more: This node does not hold" in told
    assert f"its chunks are believed to be what {place[3].id[:10]} has signed" in told


async def test_a_holder_that_stumbles_is_tried_again(tmp_path: Path):
    async with village(2) as place:
        serving = server(place[2], tmp_path, DATA)
        stumbles = iter([True, True, False])

        async def answer(stream: Stream) -> None:
            if next(stumbles, False):
                await stream.close()
            else:
                await serving.answer(stream)

        place[2].answers[Kind.BYTES] = answer
        async with fetching(place) as ranges:
            assert await ranges.read(0, 0, 1000) == DATA[:1000]


# -- manifests -----------------------------------------------------------------------------------------------


async def test_only_the_manifest_that_the_leader_named_is_believed(tmp_path: Path):
    other = bytes(len(DATA))
    async with village(3) as place:
        server(place[2], tmp_path, other)
        server(place[3], tmp_path, DATA)
        part = PartFile(len(DATA), MANIFEST.root)
        async with fetching(place, [2, 3], [part]) as ranges:
            assert await ranges.read(0, 0, 100_000) == DATA[:100_000]
            await until(lambda: place[2].id in ranges.given_up)
        assert "something else under this name" in ranges.given_up[place[2].id]


async def test_holders_of_different_files_are_not_mixed_and_people_are_told_of_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with village(3) as place:
        server(place[2], tmp_path, DATA)
        server(place[3], tmp_path, bytes(len(DATA)))
        async with fetching(place, [2, 3]) as ranges:
            got = await ranges.read(0, 0, len(DATA))
            assert got in (DATA, bytes(len(DATA)))
            await until(lambda: len(ranges.given_up) == 1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all(place[number].id[:10] in warning for number in (2, 3)) and "damaged or lies" in warning


async def test_a_manifest_of_no_member_is_not_believed(tmp_path: Path):
    async with village(2) as place:
        server(place[2], tmp_path, DATA)
        async with fetching(place, is_member=lambda _: False) as ranges:
            with pytest.raises(DownloadFailed, match="no member has signed"):
                await ranges.read(0, 0, 1)


def forged(body: bytes, number: int, domain: bytes = byte_messages.DOMAIN) -> byte_messages.SignedManifest:
    signer = key(number)
    return byte_messages.SignedManifest(
        signer=bytes.fromhex(signer.node), body=body, signature=signer.sign(domain, body)
    )


def test_a_signature_holds_for_one_file_by_one_signer_for_one_purpose():
    good = sign_manifest(key(1), MODEL, 0, MANIFEST)
    vouched = byte_messages.check_manifest(good, MODEL, 0)
    assert (vouched.signer, vouched.manifest) == (key(1).node, MANIFEST)
    for model, part in ((MODEL, 1), ("another", 0)):
        with pytest.raises(PeerError, match="another file"):
            byte_messages.check_manifest(good, model, part)
    for bad in (
        forged(good.body, 1, b"mesh-llm advert 1\0"),
        byte_messages.SignedManifest(
            signer=bytes.fromhex(key(2).node), body=good.body, signature=good.signature
        ),
        byte_messages.SignedManifest(
            signer=good.signer, body=good.body[:-1] + b"\0", signature=good.signature
        ),
    ):
        with pytest.raises(PeerError, match="signature"):
            byte_messages.check_manifest(bad, MODEL, 0)
    with pytest.raises(PeerError, match="cannot be read"):
        byte_messages.check_manifest(forged(b"\xc1", 1), MODEL, 0)


async def test_over_iroh_and_its_fast_path_it_is_the_same(tmp_path: Path):
    data = Random(13).randbytes(40_000_000)
    async with village(3, iroh=True) as place:
        for number in (2, 3):
            server(place[number], tmp_path, data)
        async with fetching(place, [2, 3], [PartFile(len(data))]) as ranges:
            assert await ranges.read(0, 77, len(data) - 77) == data[77:]
            assert not ranges.given_up
