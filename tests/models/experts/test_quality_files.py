import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import Quality
from mesh_llm.models.experts.quality_files import read_quality, write_quality

MODEL, CUT = "ab" * 16, "cd" * 16
QUALITY = Quality(perplexity=28.9, full_perplexity=23.0, kl=0.55, same_top=0.64, tokens=1020)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cuts" / "quality.json"


def test_a_quality_that_is_written_can_be_read(path: Path):
    assert read_quality(path, MODEL, CUT) is None
    write_quality(path, MODEL, CUT, QUALITY)
    assert read_quality(path, MODEL, CUT) == QUALITY


def test_the_quality_of_another_cut_is_not_taken_for_this_one(path: Path):
    write_quality(path, MODEL, CUT, QUALITY)
    for model, cut in ((CUT, CUT), (MODEL, MODEL)):
        with pytest.raises(ModelDamaged, match=r"of another cut.*judged again"):
            read_quality(path, model, cut)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 9}, "version 9"),
        ({"tokens": 0}, "impossible"),
        ({"tokens": None}, "impossible"),
        ({"perplexity": 0.5}, "impossible"),
        ({"perplexity": 10**400}, "impossible"),
        ({"full_perplexity": "12"}, "impossible"),
        ({"same_top": 1.5}, "impossible"),
        ({"kl": float("nan")}, "impossible"),
        ({"kl": -1e9}, "impossible"),
        ({"tokens": True}, "impossible"),
        ({"full_perplexity": True}, "impossible"),
    ],
)
def test_impossible_numbers_are_refused(path: Path, changes: dict[str, object], why: str):
    write_quality(path, MODEL, CUT, QUALITY)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelDamaged, match=why):
        read_quality(path, MODEL, CUT)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 70_000, b" " * 70_000])
def test_what_is_no_quality_is_refused_with_what_happens_next(path: Path, text: bytes):
    path.parent.mkdir()
    path.write_bytes(text)
    with pytest.raises(ModelDamaged, match="judged again"):
        read_quality(path, MODEL, CUT)


def test_what_cannot_be_read_is_told_and_not_taken_for_nothing(path: Path):
    path.mkdir(parents=True)
    with pytest.raises(ModelDamaged, match=r"cannot be read: Is a directory.*judged again"):
        read_quality(path, MODEL, CUT)


@given(st.binary(max_size=60), st.integers(0, 250))
def test_no_damage_does_anything_but_refuse_or_give_what_is_possible(noise: bytes, place: int):
    with TemporaryDirectory() as folder:
        path = Path(folder, "quality.json")
        write_quality(path, MODEL, CUT, QUALITY)
        whole = path.read_bytes()
        path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
        with contextlib.suppress(ModelDamaged):
            found = read_quality(path, MODEL, CUT)
            assert found is not None and found.perplexity >= 1 and found.tokens > 0
