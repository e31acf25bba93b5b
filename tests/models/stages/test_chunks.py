from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.models.stages.chunks import (
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MIN,
    CHUNKS_MAX,
    FILE_BYTES_MAX,
    HASH_BYTES,
    Manifest,
    chunk_bytes_for,
)

GB = 1_000_000_000


def manifest_of(data: bytes) -> Manifest:
    size = chunk_bytes_for(len(data))
    hashes = [sha256(data[start : start + size]).digest() for start in range(0, len(data), size)]
    return Manifest(len(data), b"".join(hashes))


@given(st.integers(1, FILE_BYTES_MAX))
def test_chunks_are_a_power_of_two_and_at_most_sixteen_thousand(file_bytes: int):
    size = chunk_bytes_for(file_bytes)
    assert size.bit_count() == 1 and CHUNK_BYTES_MIN <= size <= CHUNK_BYTES_MAX
    assert -(-file_bytes // size) <= CHUNKS_MAX
    assert size == CHUNK_BYTES_MIN or file_bytes > CHUNKS_MAX * size // 2


def test_chunks_of_a_large_model_are_a_megabyte():
    assert chunk_bytes_for(10 * GB) == 2**20
    assert chunk_bytes_for(1000) == CHUNK_BYTES_MIN


@pytest.mark.parametrize("size", [-1, 0, FILE_BYTES_MAX + 1])
def test_what_cannot_be_cut_is_refused(size: int):
    with pytest.raises(ValueError, match="no chunks"):
        chunk_bytes_for(size)


@pytest.mark.parametrize("hashes", [0, 31, 33, 64])
def test_hashes_must_be_those_of_all_chunks(hashes: int):
    with pytest.raises(ValueError, match="bytes of hashes"):
        Manifest(1000, bytes(hashes))


@given(st.data())
def test_a_range_is_covered_by_the_chunks_that_touch_it_and_no_others(data: st.DataObject):
    file_bytes = data.draw(st.integers(1, 5 * CHUNK_BYTES_MIN))
    manifest = Manifest(file_bytes, bytes(HASH_BYTES * -(-file_bytes // CHUNK_BYTES_MIN)))
    offset = data.draw(st.integers(0, file_bytes - 1))
    length = data.draw(st.integers(1, file_bytes - offset))
    chunks = manifest.covering(offset, length)
    start, size = manifest.extent(chunks)
    assert start <= offset and offset + length <= start + size <= file_bytes
    assert offset - start < CHUNK_BYTES_MIN and start + size - (offset + length) < CHUNK_BYTES_MIN


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (0, 1001), (1000, 1), (5, -2)])
def test_a_range_beyond_the_file_is_refused(offset: int, length: int):
    with pytest.raises(ValueError, match="of a file of 1000 bytes"):
        manifest_of(bytes(1000)).covering(offset, length)


def test_a_flipped_bit_is_found_in_its_chunk_however_the_bytes_came():
    chance = Random(1)
    data = chance.randbytes(5 * CHUNK_BYTES_MIN + 77)
    manifest = manifest_of(data)
    every = range(manifest.count)
    for _ in range(30):
        cuts = sorted(chance.randrange(len(data)) for _ in range(4))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert manifest.first_wrong(every, pieces) is None
        place = chance.randrange(len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        pieces = [
            bytes(flipped[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)
        ]
        assert manifest.first_wrong(every, pieces) == place // CHUNK_BYTES_MIN


@pytest.mark.parametrize("change", [-1, 1, CHUNK_BYTES_MIN])
def test_too_few_or_too_many_bytes_are_wrong(change: int):
    data = Random(2).randbytes(3 * CHUNK_BYTES_MIN)
    manifest = manifest_of(data)
    given_bytes = data[CHUNK_BYTES_MIN:] + bytes(CHUNK_BYTES_MIN)
    assert manifest.first_wrong(range(1, 3), [given_bytes[: 2 * CHUNK_BYTES_MIN + change]]) is not None


def test_the_root_stands_for_every_hash_and_the_size():
    one = manifest_of(bytes(CHUNK_BYTES_MIN * 2))
    other = Manifest(one.file_bytes - 1, one.hashes)
    assert one.root != other.root != manifest_of(b"\1" + bytes(CHUNK_BYTES_MIN * 2 - 1)).root
    assert one.root == manifest_of(bytes(CHUNK_BYTES_MIN * 2)).root
