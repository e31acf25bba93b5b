"""Rankings from members that mean well, and from those that do not: real streams, hostile answers by hand."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Stream, Unreachable
from mesh_llm.models.experts.ranking_files import decode_ranking, encode_ranking, ranking_bytes_max
from mesh_llm.splits.ranking_exchange import STREAMS_OF_PEER_MAX, RankingServer, ranking_from
from tests.splits.village import Answer, Village, until, village

ASKER, HOLDER = 1, 2
MODEL = "ab" * 16
SHAPE = ExpertShape(experts=8, used=2, layers=tuple(range(1, 5)))
RANKING = ExpertRanking.of(dict.fromkeys(SHAPE.layers, (3, 0, 1, 2, 7, 6, 5, 4)), "measured here")
PLAIN = json.loads(encode_ranking(MODEL, RANKING))
LARGEST = ExpertShape(experts=1024, used=8, layers=tuple(range(256)))


async def asked(place: Village, answer: Answer, seconds_max: float = 30.0) -> ExpertRanking:
    place[HOLDER].answers[Kind.RANKING] = answer
    return await ranking_from(place[HOLDER].id, place[ASKER].stream, MODEL, SHAPE, seconds_max)


def saying(text: bytes) -> Answer:
    async def answer(stream: Stream) -> None:
        await stream.receive()
        await stream.send(text)
        await stream.finish()

    return answer


def with_layers(**changes: object) -> bytes:
    return altered(layers=PLAIN["layers"] | changes)


def altered(**changes: object) -> bytes:
    """With a digest that fits, where there can be one."""
    said: dict[str, Any] = PLAIN | changes
    try:
        lists = {int(layer): tuple(ids) for layer, ids in said["layers"].items()}
        said = said | {"digest": ExpertRanking.of(lists, "").digest} | changes
    except (AttributeError, TypeError, ValueError):
        pass
    return json.dumps(said).encode()


async def test_a_ranking_comes_as_it_is_and_is_encoded_once():
    async with village(2) as place:
        asked_for: list[str] = []

        def find(identity: str) -> ExpertRanking | None:
            asked_for.append(identity)
            return RANKING if identity == MODEL else None

        server = RankingServer(find)
        assert await asked(place, server.answer) == RANKING
        assert await asked(place, server.answer) == RANKING
        assert asked_for == [MODEL, MODEL]
        with pytest.raises(Refused, match="no ranking"):
            await ranking_from(place[HOLDER].id, place[ASKER].stream, "cd" * 16, SHAPE)
        await until(lambda: repr(server) == "<RankingServer 0 streams>")


async def test_the_ranking_of_the_largest_mixture_is_within_its_bound():
    ids = tuple(reversed(range(LARGEST.experts)))
    ranking = ExpertRanking.of(dict.fromkeys(LARGEST.layers, ids), "\N{SNOWMAN}" * 200)
    assert len(json.dumps(json.loads(encode_ranking(MODEL, ranking)), indent=2)) < ranking_bytes_max(LARGEST)
    async with village(2) as place:
        place[HOLDER].answers[Kind.RANKING] = RankingServer(lambda _: ranking).answer
        told = await ranking_from(place[HOLDER].id, place[ASKER].stream, MODEL, LARGEST)
        assert told == ranking


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\x00", "no JSON"),
        (b"GGUF", "no JSON"),
        (altered(version=2), "version 2"),
        (altered(version=10**400), "version 1000"),
        (altered(version=None), "version None"),
        (altered(model="cd" * 16), "another model's files"),
        (altered()[:-1], "cut off"),
        (altered()[: len(altered()) // 2], "cut off"),
        (altered(layers={}), "4 layers"),
        (altered(layers={str(layer): [0, 1] for layer in range(300)}), "4 layers"),
        (with_layers(**{"5": list(range(8))}), "4 layers"),
        (with_layers(**{"-1": list(range(8))}), "4 layers"),
        (altered(layers={name: PLAIN["layers"][name] for name in "123"}), "4 layers"),
        (altered(layers=[PLAIN["layers"]]), "4 layers"),
        (with_layers(**{"2": list(range(9))}), "8 experts of layer 2 once"),
        (with_layers(**{"2": list(range(7))}), "8 experts of layer 2 once"),
        (with_layers(**{"2": [0, 0, 1, 2, 3, 4, 5, 6]}), "8 experts of layer 2 once"),
        (with_layers(**{"2": [-1, 0, 1, 2, 3, 4, 5, 6]}), "8 experts of layer 2 once"),
        (with_layers(**{"2": [10**300, 0, 1, 2, 3, 4, 5, 6]}), "8 experts of layer 2 once"),
        (with_layers(**{"2": [0.0, 1, 2, 3, 4, 5, 6, 7]}), "8 experts of layer 2 once"),
        (with_layers(**{"2": [[0], 1, 2, 3, 4, 5, 6, 7]}), "8 experts of layer 2 once"),
        (with_layers(**{"2": None}), "8 experts of layer 2 once"),
        (b'{"version":1,"model":' + b"9" * 4500 + b"}", "no JSON"),
        (altered(digest="0" * 32), "altered"),
        (b"[" * (ranking_bytes_max(SHAPE) - 1), "no JSON"),
        (b"[]," * (ranking_bytes_max(SHAPE) // 3), "no JSON"),
        (b" " * (ranking_bytes_max(SHAPE) + 1), "fewer"),
        (bytes(1 << 20), "fewer"),
    ],
)
async def test_what_is_no_ranking_of_this_model_is_refused_with_the_reason(text: bytes, why: str):
    async with village(2) as place:
        with pytest.raises(PeerError, match=why):
            await asked(place, saying(text))


async def test_nothing_at_all_is_no_ranking():
    async def answer(stream: Stream) -> None:
        await stream.receive()
        await stream.finish()

    async with village(2) as place:
        with pytest.raises(PeerError, match="cut off"):
            await asked(place, answer)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
async def test_what_never_ends_is_broken_off_at_the_bound(size: int):
    sent = 0

    async def answer(stream: Stream) -> None:
        nonlocal sent
        while True:
            await stream.send(b"1" * size)
            sent += size

    async with village(2) as place:
        with pytest.raises(PeerError, match="fewer"):
            await asked(place, answer)
        await until(lambda: place[HOLDER].open == 0)
        assert sent < ranking_bytes_max(SHAPE) + (8 << 20)  # what is on its way, and no more


@pytest.mark.parametrize("piece", [b"", b"1"], ids=["silent", "trickling"])
async def test_who_takes_for_ever_is_waited_for_so_long_and_no_longer(piece: bytes):
    over = asyncio.Event()

    async def answer(stream: Stream) -> None:
        while not over.is_set():
            if piece:
                await stream.send(piece)
            await asyncio.sleep(0.01)

    async with village(2, seconds=20) as place:
        with pytest.raises(Unreachable, match=r"no ranking within 0\.2 s"):
            await asked(place, answer, seconds_max=0.2)
        over.set()


async def test_a_member_that_breaks_off_leaves_no_ranking():
    async def answer(stream: Stream) -> None:
        await stream.receive()
        await stream.send(altered()[:100])

    async with village(2) as place:
        with pytest.raises(Unreachable):
            await asked(place, answer)


@pytest.mark.parametrize(
    "wish",
    [
        b"\xc1",
        msgspec.msgpack.encode({"model": "../../etc/passwd"}),
        msgspec.msgpack.encode({"model": "AB" * 16}),
        msgspec.msgpack.encode({"model": "ab" * 65}),
        msgspec.msgpack.encode({"model": 7}),
        msgspec.msgpack.encode({}),
        bytes(2000),
    ],
)
async def test_a_wish_that_is_none_is_counted_and_answered_by_nothing(wish: bytes):
    async with village(2) as place:
        place[HOLDER].answers[Kind.RANKING] = RankingServer(lambda _: pytest.fail("looked for")).answer
        async with place[ASKER].stream(place[HOLDER].id, Kind.RANKING) as stream:
            await stream.send(wish)
            with pytest.raises(Unreachable):
                await stream.receive()
        assert len(place[HOLDER].errors) == 1


async def test_one_member_opens_few_streams_at_once_and_others_are_answered_meanwhile():
    async with village(3) as place:
        server = RankingServer(lambda _: RANKING)
        place[HOLDER].answers[Kind.RANKING] = server.answer
        async with asyncio.TaskGroup() as tasks:
            over = asyncio.Event()

            async def hold() -> None:
                async with place[ASKER].stream(place[HOLDER].id, Kind.RANKING):
                    await over.wait()

            for _ in range(STREAMS_OF_PEER_MAX):
                tasks.create_task(hold())
            await until(lambda: repr(server) == f"<RankingServer {STREAMS_OF_PEER_MAX} streams>")
            with pytest.raises(Refused, match="wait for one"):
                await ranking_from(place[HOLDER].id, place[ASKER].stream, MODEL, SHAPE)
            assert await ranking_from(place[HOLDER].id, place[3].stream, MODEL, SHAPE) == RANKING
            over.set()
        await until(lambda: repr(server) == "<RankingServer 0 streams>")
        assert await ranking_from(place[HOLDER].id, place[ASKER].stream, MODEL, SHAPE) == RANKING


# -- any bytes -----------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)
lists = st.dictionaries(
    st.sampled_from(["1", "2", "3", "4", "5", "01", ""]),
    st.lists(st.integers(-1, 9) | values, max_size=10) | st.permutations(range(8)) | values,
)
rankings = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(1) | values,
        "model": st.just(MODEL) | values,
        "source": st.text() | values,
        "digest": st.just(RANKING.digest) | values,
        "layers": lists | st.just(PLAIN["layers"]) | values,
        "more": values,
    },
)


def decoded_or_refused(decode: Callable[[], ExpertRanking]) -> None:
    try:
        told = decode()
    except ModelDamaged as error:
        why = str(error)
    else:
        why = "It must be measured again."
        assert all(sorted(ids) == list(range(8)) for ids in told.by_layer.values())
        assert tuple(told.by_layer) == SHAPE.layers and told.source.isprintable()
    assert why.endswith("It must be measured again.") and len(why) < 300


@given(rankings)
def test_any_value_is_a_ranking_of_all_experts_or_refused(said: dict[str, Any]):
    decoded_or_refused(lambda: decode_ranking(json.dumps(said).encode(), MODEL, SHAPE))


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 40))
def test_any_damage_is_refused(noise: bytes, place: int, lost: int):
    whole = encode_ranking(MODEL, RANKING).encode()
    text = whole[:place] + noise + whole[place + lost :]
    decoded_or_refused(lambda: decode_ranking(text, MODEL, SHAPE))
