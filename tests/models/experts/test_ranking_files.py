import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import DiskFull, ModelDamaged
from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.models.experts.ranking_files import (
    decode_ranking,
    encode_ranking,
    kept_ranking,
    read_ranking,
    write_ranking,
)

MODEL = "ab" * 16
SHAPE = ExpertShape(experts=4, used=2, layers=(1, 2))
RANKING = ExpertRanking.of({1: (3, 0, 1, 2), 2: (0, 1, 2, 3)}, "measured here")


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(encode_ranking(MODEL, RANKING)) | fields).encode()


def test_a_ranking_that_is_written_can_be_read(tmp_path: Path):
    path = tmp_path / "new" / "ranking.json"
    write_ranking(path, MODEL, RANKING)
    assert read_ranking(path, MODEL, SHAPE) == RANKING
    assert [each.name for each in path.parent.iterdir()] == ["ranking.json"]


def test_where_there_is_no_file_there_is_no_ranking(tmp_path: Path):
    assert read_ranking(tmp_path / "ranking.json", MODEL, SHAPE) is None


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_any_ranking_comes_back_as_it_was(first: list[int], second: list[int]):
    shape = ExpertShape(experts=6, used=1, layers=(0, 7))
    ranking = ExpertRanking.of({0: tuple(first), 7: tuple(second)}, "a peer's")
    assert decode_ranking(encode_ranking(MODEL, ranking).encode(), MODEL, shape) == ranking


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "cut off"),
        (changed()[:-20], "cut off"),
        (b"\xff\xfe", "cut off"),
        (b"[" * 4000, "cut off"),
        (b"[]", "no JSON object"),
        (changed(version=2), "has version 2, known is 1"),
        (changed(model="cd" * 16), "of another model's files"),
        (changed(source=7), "where it is from"),
        (changed(layers={"1": [0, 1, 2, 3]}), "layers that have any"),
        (changed(layers=[]), "layers that have any"),
        (changed(layers={"1": [0, 1, 2], "2": [0, 1, 2, 3]}), "4 experts of layer 1 once"),
        (changed(layers={"1": [0, 1, 2, 2], "2": [0, 1, 2, 3]}), "4 experts of layer 1 once"),
        (changed(layers={"1": [0, 1, 2, 3], "2": [0, True, 2, 3]}), "4 experts of layer 2 once"),
        (changed(layers={"1": [0, 1, 2, 3], "2": "0123"}), "4 experts of layer 2 once"),
        (changed(layers={"1": [0, 1, 2, 3], "2": [0, 1, 2, 3]}), "altered"),
        (changed(digest="00"), "altered"),
        (b" " * 4353, "more than 4,352 bytes"),
    ],
)
def test_what_does_not_check_is_refused_with_the_reason(text: bytes, why: str):
    with pytest.raises(ModelDamaged, match=why):
        decode_ranking(text, MODEL, SHAPE)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_damage_does_anything_but_refuse(noise: bytes, place: int):
    whole = encode_ranking(MODEL, RANKING).encode()
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    with contextlib.suppress(ModelDamaged):
        assert decode_ranking(damaged, MODEL, SHAPE).by_layer == RANKING.by_layer


async def test_a_damaged_file_is_made_anew_and_the_reason_told(tmp_path: Path):
    path = tmp_path / "ranking.json"
    path.write_text("{")
    told: list[str] = []
    made: list[ExpertRanking] = []

    async def make() -> ExpertRanking:
        made.append(RANKING)
        return RANKING

    for _ in range(2):
        assert await kept_ranking(path, MODEL, SHAPE, make, told.append) == RANKING
    assert len(made) == len(told) == 1
    assert "cut off" in told[0] and "measured again" in told[0]


def test_what_cannot_be_read_is_told_and_not_taken_for_nothing(tmp_path: Path):
    with pytest.raises(ModelDamaged, match=r"cannot be read: Is a directory.*measured again"):
        read_ranking(tmp_path, MODEL, SHAPE)


async def test_the_file_of_another_model_is_made_anew(tmp_path: Path):
    path = tmp_path / "ranking.json"
    write_ranking(path, "cd" * 16, RANKING)
    told: list[str] = []

    async def make() -> ExpertRanking:
        return RANKING

    await kept_ranking(path, MODEL, SHAPE, make, told.append)
    assert "another model" in told[0] and read_ranking(path, MODEL, SHAPE) == RANKING


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull):
        write_ranking(tmp_path / "file" / "ranking.json", MODEL, RANKING)
