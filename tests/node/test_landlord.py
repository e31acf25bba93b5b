"""Orders to run whole models for others: the real landlord and hosting, engines that do as they are told,
leaders that send anything."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mesh_llm.core.ids import NodeId
from mesh_llm.core.progress import ignore
from mesh_llm.engine.supervisor import Supervisor
from mesh_llm.engine.whole.placement import served_model
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import Kind, PeerError, Refused, Stream, Unreachable
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library, LocalModel
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.stages.store import StageStore
from mesh_llm.node.guests import Guests
from mesh_llm.node.landlord import NodeLandlord
from mesh_llm.node.model_bytes import ModelBytes
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.split_sources import identity_of, parts_here
from mesh_llm.planner.fit import Fit
from mesh_llm.runtime.clock import Clock
from mesh_llm.splits import messages
from mesh_llm.splits.byte_serving import ByteServer
from mesh_llm.splits.hosting import Hosting
from mesh_llm.splits.leases import Leases
from mesh_llm.splits.messages import (
    Accepted,
    Assign,
    Declined,
    FromHolder,
    Link,
    Lost,
    Ready,
    Release,
    Survey,
)
from mesh_llm.splits.ring_door import RingDoor
from mesh_llm.splits.surveying import Room, Surveyor
from tests.engine.test_supervisor import Workshop
from tests.mesh.members import key
from tests.mesh.mutations import mutations
from tests.node.settings import doors, settings_in
from tests.splits.landlords import offering
from tests.splits.village import Village, until, village
from tests.tiny_models import write_tiny_model

LEADER, HOLDER = 1, 2
MEMORY = 1_000_000_000


class Shop(OwnModels):
    """Its engines do as they are told."""

    def __init__(self, places: ModelPlaces) -> None:
        super().__init__(
            settings_in(places.store, memory_bytes_max=MEMORY, places=places), doors(), lambda: None
        )
        self.planned.set()
        self.workshop = Workshop()

    def supervise(self, model: LocalModel, fitted: Fit) -> Supervisor:
        served = served_model(model, fitted, 0)
        return Supervisor(served, self.workshop, Clock(), ignore, lambda: None)


@dataclass(frozen=True)
class Inn:
    """A node that runs whole models for others."""

    landlord: NodeLandlord
    hosting: Hosting
    leases: Leases
    guests: Guests
    shop: Shop

    @property
    def is_empty(self) -> bool:
        return (self.hosting.holdings(), self.leases.bytes_lent, self.guests.supervisors) == ((), 0, ())


class Acquainted:
    """As much of `Mesh` as bytes of models are had by."""

    def __init__(self, place: Village) -> None:
        self._place = place
        self.is_member = place.is_member

    def stream(self, node: NodeId, kind: Kind) -> AbstractAsyncContextManager[Stream]:
        if node != self._place[LEADER].id:
            raise Unreachable("nobody answers there")
        return self._place[HOLDER].stream(node, kind)


async def refuse(stream: Stream) -> None:
    await stream.refuse("This node does not hold that file.")


def opened(place: Village, places: ModelPlaces) -> Inn:
    villager = place[HOLDER]
    mesh = cast("Mesh", Acquainted(place))
    place[LEADER].answers[Kind.BYTES] = refuse
    shop, leases = Shop(places), Leases()
    guests = Guests(shop, lambda: None)
    manifests = Manifests(Records(places.notes, places.store))
    ranges = ModelBytes(places, manifests, mesh).ranges
    landlord = NodeLandlord(shop, StageStore(places), leases, lambda _: {}, ranges, guests, {})
    surveyor = Surveyor(villager, offering(lambda: Room(landlord.memory_bytes_free(), 5e9)), place.is_member)
    hosting = Hosting(landlord, surveyor, RingDoor(), villager.stream, lambda: None)
    villager.answers[Kind.STAGE] = hosting.answer
    return Inn(landlord, hosting, leases, guests, shop)


@dataclass(frozen=True)
class Shelf:
    places: ModelPlaces
    order: Assign
    """That a leader may give."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """The model lies on the node's own disk: nothing is fetched."""
    store = tmp_path_factory.mktemp("store")
    (file,) = write_tiny_model(store / "tiny.gguf", "llama")
    places = ModelPlaces(store, store / "none", store / "none.toml", offline=True)
    return Shelf(places, asyncio.run(good_order(places, file)))


async def good_order(places: ModelPlaces, file: Path) -> Assign:
    records = Records(places.notes, places.store)
    library = Library(places, load_catalogue(places.own_catalogue))
    model = await library.open(library.at(file))
    parts = await parts_here(model, Manifests(records), records)
    return Assign(
        ring=bytes(16),
        model=identity_of(parts),
        name="tiny",
        parts=parts,
        first=0,
        end=len(model.facts.kv_heads),
        stage=1,
        whole=True,
        context=256,
        sequences=1,
        batch=256,
        kv_type="f16",
        memory_bytes=MEMORY // 2,
    )


async def heard(stream: Stream, *until_words: type[FromHolder]) -> list[FromHolder]:
    """Until such a word, or the stream's end, in whatever way it ends."""
    said: list[FromHolder] = []
    with suppress(Unreachable, Refused):
        while (frame := await stream.receive()) is not None:
            word = messages.decode_from_holder(frame)
            assert word is not None
            said.append(word)
            if isinstance(word, until_words):
                break
    return said


@asynccontextmanager
async def lease(place: Village, order: bytes) -> AsyncGenerator[list[FromHolder]]:
    """What the holder says up to `Ready`, or to its last word; the lease lasts as long as the context."""
    async with place[LEADER].stream(place[HOLDER].id, Kind.STAGE) as stream:
        await stream.send(order)
        yield await heard(stream, Ready, Declined, Lost)


def changed(order: Assign, **fields: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.decode(messages.encode(order)) | fields)


async def test_a_whole_model_runs_as_long_as_its_leader_wants_it(shelf: Shelf):
    async with village(2) as place:
        inn = opened(place, shelf.places)
        async with lease(place, messages.encode(shelf.order)) as said:
            assert said[0] == Accepted() and isinstance(said[-1], Ready)
            assert [each.model.name for each in inn.guests.supervisors] == ["tiny"]
            assert inn.shop.workshop.open == 1 and inn.leases.bytes_lent == MEMORY // 2
        await until(lambda: inn.is_empty)
        assert inn.shop.workshop.open == 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"first": 1}, "are not all of tiny"),
        ({"end": 1}, "are not all of tiny"),
        ({"end": 4096}, "are not all of tiny"),
        ({"memory_bytes": 0}, "available"),
        ({"memory_bytes": 1_000_000}, "available"),
        ({"memory_bytes": 1 << 50}, "more than"),
        ({"context": 1 << 24}, "was trained for"),
        ({"kv_type": "f64"}, "no KV cache of type f64"),
        ({"model": "ab" * 32}, "not of that model"),
        ({"model": "../../../etc/passwd"}, "not of that model"),
        ({"parts": []}, None),
        ({"name": "two\nlines"}, None),
        ({"name": "\x1b[2J"}, None),
    ],
    ids=str,
)
async def test_an_order_that_cannot_be_meant_is_refused_with_the_reason(
    shelf: Shelf, fields: Mapping[str, object], why: str | None
):
    async with village(2) as place:
        inn = opened(place, shelf.places)
        if why is None:
            async with place[LEADER].stream(place[HOLDER].id, Kind.STAGE) as stream:
                await stream.send(changed(shelf.order, **fields))
                assert await heard(stream) == []
            assert len(place[HOLDER].errors) == 1
        else:
            async with lease(place, changed(shelf.order, **fields)) as said:
                last = said[-1]
                assert isinstance(last, Declined | Lost) and why in last.reason
        await until(lambda: inn.is_empty)
        assert not inn.shop.workshop.engines


async def test_files_of_another_model_under_this_ones_name_are_not_run(shelf: Shelf):
    (part,) = shelf.order.parts
    for false in (
        msgspec.structs.replace(part, root=bytes(32)),
        msgspec.structs.replace(part, size=part.size - 1),
    ):
        for parts in ((false,), (false, part), (part, part)):
            order = msgspec.structs.replace(shelf.order, parts=parts)
            for model in (order.model, identity_of(parts)):
                async with village(2) as place:
                    inn = opened(place, shelf.places)
                    async with lease(place, changed(order, model=model)) as said:
                        assert isinstance(said[-1], Declined | Lost)
                    await until(lambda inn=inn: inn.is_empty)


async def test_files_of_which_nobody_says_what_they_hold_are_not_had_from_anybody(shelf: Shelf):
    (part,) = shelf.order.parts
    parts = (msgspec.structs.replace(part, sha256="", root=None),)
    order = msgspec.structs.replace(shelf.order, parts=parts, model=identity_of(parts))
    async with village(2) as place:
        inn = opened(place, shelf.places)
        async with lease(place, messages.encode(order)) as said:
            last = said[-1]
            assert isinstance(last, Declined) and "neither SHA-256 nor chunks" in last.reason
        await until(lambda: inn.is_empty)


async def test_a_leader_that_names_the_checksum_of_another_model_does_not_change_what_is_kept_of_that(
    shelf: Shelf, tmp_path: Path
):
    """It gives a file of its own, too, which has all the chunks that it named."""
    (honest,) = shelf.order.parts
    true, false = (tmp_path / each / "tiny.gguf" for each in ("true", "false"))
    for each in (true, false):
        each.parent.mkdir()
    (tensors,) = write_tiny_model(true, "llama")
    data = tensors.read_bytes()
    false.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    empty = tmp_path / "holder"
    places = ModelPlaces(empty, empty / "none", empty / "none.toml", offline=True)
    manifests = Manifests(Records(tmp_path / "notes", tmp_path))
    kept: list[bytes] = []
    async with village(2) as place:
        landlord = opened(place, places).landlord
        leader = place[LEADER]
        for file in (false, true):
            root = (await manifests.manifest_of(file))[0].root
            parts = (msgspec.structs.replace(honest, size=len(data), sha256="ab" * 32, root=root),)
            order = msgspec.structs.replace(
                shelf.order, parts=parts, model=identity_of(parts), holders=(bytes.fromhex(leader.id),)
            )
            serving = ByteServer(leader.key, {order.model: [file]}.get, manifests)
            leader.answers[Kind.BYTES] = serving.answer
            async with landlord.obtain(order, lambda _: None) as stage:
                kept.append(stage.read_bytes())
    assert kept[0][-1] == kept[1][-1] ^ 1


# -- anything ------------------------------------------------------------------------------------------------

sizes = (
    st.sampled_from([-1, 0, 1, 2, 255, 256, 4095, 4096, 1 << 16, 1 << 24, 1 << 50, 1 << 63]) | st.integers()
)
junk = st.none() | st.booleans() | sizes | st.floats() | st.text(max_size=5) | st.binary(max_size=40)
few = st.integers(1, 600)
nodes = st.sampled_from([bytes.fromhex(key(number).node) for number in (1, 2, 9)])


def changes(**plausible: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Of few fields, and those mostly to what could be meant: else nothing but their types is looked at."""
    wrong = junk.filter(lambda value: value is not False)

    def mostly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.integers(0, 9).flatmap(lambda number: wrong if number == 0 else values)

    fields = [st.tuples(st.just(name), mostly(values)) for name, values in plausible.items()]
    return st.lists(st.one_of(*fields), max_size=3).map(dict)


part_changes = changes(
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
    size=st.integers(1, 1 << 20),
    sha256=st.sampled_from(["a" * 64, ""]),
    root=st.binary(min_size=32, max_size=32) | st.none(),
    origin=st.sampled_from(["https://x.example/a.gguf", "file:///etc/passwd"]),
    more=junk,
)
order_changes = changes(
    model=st.sampled_from(["ab" * 16, "../x", "x" * 129]),
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1),
    holders=st.lists(nodes, max_size=66),
    first=st.integers(-1, 6),
    end=st.integers(0, 6),
    stage=st.integers(1, 64),
    context=few | sizes,
    sequences=few | sizes,
    batch=few | sizes,
    kv_type=st.sampled_from(["f16", "q8_0", "q4_0", "f32", "../f16"]),
    activations=st.sampled_from(["f16", "f32"]),
    memory_bytes=st.integers(0, 2 * MEMORY),
    ring=st.binary(min_size=16, max_size=16),
    colour=junk,
)
ID = bytes(16)
NODE = bytes.fromhex(key(LEADER).node)
WORDS = [
    messages.encode(Release()),
    messages.encode(Survey()),
    messages.encode(Link(session=ID, previous=NODE, following=NODE, following_stage=0)),
    messages.encode(Accepted()),
    b"\x81\xa2is\xa4move",
    b"\xc1",
    bytes(1 << 20),
]


def frames_from(
    order: Assign, orders: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> Iterator[bytes]:
    """Each order with its fields changed, and those of its files."""
    said = msgspec.msgpack.decode(messages.encode(order))
    for fields, parts in orders:
        changed_parts = [said["parts"][0] | changes for changes in parts] or said["parts"]
        as_told = said | {"parts": changed_parts}
        with suppress(Exception):  # else the order is refused before anybody looks at its fields
            as_told["model"] = identity_of(msgspec.convert(changed_parts, tuple[messages.Part, ...]))
        try:
            yield msgspec.msgpack.encode(as_told | fields)
        except (OverflowError, ValueError):
            yield b"\xc1"


async def survives(shelf: Shelf, frames: Sequence[bytes], *last_words: type[FromHolder]) -> None:
    """The node: it holds nothing afterwards, said why where rules were broken, and takes the next order."""
    async with village(2, seconds=30) as place:
        inn = opened(place, shelf.places)
        said: list[FromHolder] = []
        async with place[LEADER].stream(place[HOLDER].id, Kind.STAGE) as stream:
            with suppress(Unreachable, Refused):
                for frame in frames:
                    await stream.send(frame)
                said = await heard(stream, *last_words)
                await stream.finish()
            said += await heard(stream)
        await until(lambda: inn.is_empty and place[HOLDER].open == 0)
        assert all(str(error) for error in place[HOLDER].errors) and len(place[HOLDER].errors) <= 1
        assert all(each.reason for each in said if isinstance(each, Declined | Lost))
        async with lease(place, messages.encode(shelf.order)) as again:
            assert isinstance(again[-1], Ready)
        await until(lambda: inn.is_empty)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(order_changes, st.lists(part_changes, max_size=3)), min_size=1, max_size=2),
    st.lists(st.sampled_from(WORDS), max_size=3),
    st.booleans(),
)
def test_whatever_a_leader_orders_the_node_survives(
    shelf: Shelf, orders: list[tuple[dict[str, Any], list[dict[str, Any]]]], words: list[bytes], waits: bool
):
    frames = [*frames_from(shelf.order, orders), *words]
    if waits:  # for what becomes of the first
        asyncio.run(survives(shelf, frames[:1], Ready, Declined, Lost))
    else:
        asyncio.run(survives(shelf, frames, Accepted, Declined))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32), st.lists(st.sampled_from(WORDS), max_size=2))
def test_whatever_damage_an_order_takes_the_node_survives(shelf: Shelf, seed: int, words: list[bytes]):
    frames = list(mutations([messages.encode(shelf.order), *WORDS[:3]], seed, 3))
    assume(all(is_of_no_stage(frame) for frame in frames))
    asyncio.run(survives(shelf, [frame or b"\x80" for frame in frames] + words, Accepted, Declined))


def is_of_no_stage(frame: bytes) -> bool:
    """Orders of stages start processes: others fuzz them."""
    with suppress(PeerError):
        said = messages.decode_from_leader(frame)
        return not (isinstance(said, Assign) and not said.whole)
    return True
