"""By what nodes know a model's files, and what is made of them."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec

from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library, LocalModel
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Identity, Record, Records
from mesh_llm.node.split_sources import cache_key, identity_of, published_identity
from mesh_llm.splits.messages import Part
from tests.tiny_models import write_tiny_model

PARTS = (
    Part(name="one", size=5, sha256="ab" * 32, root=b"1" * 32),
    Part(name="two", size=6, sha256="cd" * 32, root=b"2" * 32),
)


async def opened(folder: Path, *, is_known: bool = True) -> LocalModel:
    (file,) = write_tiny_model(folder / "tiny.gguf", "llama")
    if is_known:
        digest = sha256(file.read_bytes()).hexdigest()
        notes_of(folder).write(file, Record(digest, Identity.of(file), ""))
    places = ModelPlaces(folder, folder / "none", folder / "none.toml")
    library = Library(places, load_catalogue(places.own_catalogue))
    return await library.open(library.at(file))


def notes_of(folder: Path) -> Records:
    places = ModelPlaces(folder, folder / "none", folder / "none.toml")
    return Records(places.notes, places.store)


async def test_a_file_on_disk_is_known_as_the_hub_publishes_it(tmp_path: Path):
    model = await opened(tmp_path)
    data = model.files[0].read_bytes()
    at_hub = Part(name="called-otherwise.gguf", size=len(data), sha256=sha256(data).hexdigest())
    assert published_identity(model, notes_of(tmp_path)) == identity_of([at_hub])


async def test_a_file_copied_by_hand_is_known_as_nothing_that_is_published(tmp_path: Path):
    assert published_identity(await opened(tmp_path, is_known=False), notes_of(tmp_path)) is None


async def test_a_file_that_was_altered_or_is_gone_is_not_passed_on_as_what_it_was(tmp_path: Path):
    model = await opened(tmp_path)
    data = bytearray(model.files[0].read_bytes())
    data[-1] ^= 1
    (tmp_path / "other").write_bytes(data)
    (tmp_path / "other").replace(model.files[0])
    assert published_identity(model, notes_of(tmp_path)) is None
    model.files[0].unlink()
    assert published_identity(model, notes_of(tmp_path)) is None


async def test_a_checksum_that_the_records_do_not_have_is_not_believed(tmp_path: Path):
    model = replace(await opened(tmp_path), sha256=("ab" * 32,))
    assert published_identity(model, notes_of(tmp_path)) is None


def test_what_is_made_of_other_chunks_is_kept_elsewhere_though_the_checksum_is_the_same():
    identity = identity_of(PARTS)
    others = [
        (msgspec.structs.replace(PARTS[0], root=root), PARTS[1]) for root in (None, b"3" * 32, b"2" * 32)
    ] + [(PARTS[0], msgspec.structs.replace(PARTS[1], root=None))]
    assert {identity_of(parts) for parts in others} == {identity}
    keys = {cache_key(identity, parts) for parts in (PARTS, *others)}
    assert len(keys) == 5
    assert cache_key("ab" * 32, PARTS) not in keys
    assert cache_key(identity, [msgspec.structs.replace(part, origin="") for part in PARTS]) in keys
