from pathlib import Path

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.models.experts.texts import Documentation, Half, half_of, passages, passages_of_file, spread

LONG = "It says what it does in many words, so that it is long enough to be of use. " * 5


@pytest.fixture
def documentation(tmp_path: Path) -> Documentation:
    for number in range(40):
        source = f'"""Module {number}. {LONG}"""\ndef short():\n    """No."""\n'
        (tmp_path / f"m{number}.py").write_text(source)
    (tmp_path / "broken.py").write_text("def (")
    return Documentation({f"chapter {number}": "Chapter. " * 300 for number in range(20)}, tmp_path)


def test_passages_are_many_long_and_the_same_each_time():
    for half in Half:
        found = passages(half, 8, 4000)
        assert len(set(found)) == 8 and {len(each) for each in found} == {4000}
        assert passages(half, 8, 4000) == found


def test_nothing_that_was_measured_with_is_judged_by(documentation: Documentation):
    def modules(half: Half) -> set[str]:
        text = "".join(passages(half, 8, 2000, documentation))
        return {f"m{number}.py" for number in range(40) if f"Module {number}. " in text}

    assert modules(Half.CALIBRATION) and modules(Half.HELD_OUT)
    assert {half_of(name) for name in modules(Half.CALIBRATION)} == {Half.CALIBRATION}
    assert {half_of(name) for name in modules(Half.HELD_OUT)} == {Half.HELD_OUT}


def test_both_kinds_are_there(documentation: Documentation):
    found = passages(Half.CALIBRATION, 4, 1000, documentation)
    assert ["many words" in each for each in found] == [False, False, True, True]


def test_a_python_without_documentation_says_what_is_missing(tmp_path: Path):
    with pytest.raises(RequestRefused, match="without its documentation"):
        passages(Half.HELD_OUT, 4, 1000, Documentation({}, tmp_path))


def test_passages_come_from_all_over_a_text():
    assert spread("aabbccdd", 2, 2) == ["aa", "cc"]
    assert spread("aabb", 9, 2) == ["aa", "bb"]
    assert spread("a", 9, 2) == []
    assert spread("aabb", 0, 2) == []


def test_a_person_s_own_text_is_read_or_refused(tmp_path: Path):
    path = tmp_path / "own.txt"
    path.write_text("x" * 50)
    assert passages_of_file(path, 2, 20) == ["x" * 20] * 2
    with pytest.raises(RequestRefused, match="less than 51 characters"):
        passages_of_file(path, 2, 51)
    with pytest.raises(RequestRefused, match="cannot be read"):
        passages_of_file(tmp_path / "none.txt", 2, 20)
