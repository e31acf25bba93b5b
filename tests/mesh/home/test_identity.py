from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.mesh.home.identity import KEY_FILE, load_key, load_or_create_key


def test_a_home_keeps_its_key(tmp_path: Path):
    key = load_or_create_key(tmp_path / "home", Random(1))
    assert load_or_create_key(tmp_path / "home", Random(2)).node == key.node
    assert (tmp_path / "home" / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_two_homes_are_two_nodes(tmp_path: Path):
    chance = Random(1)
    one, other = (load_or_create_key(tmp_path / name, chance) for name in ("a", "b"))
    assert one.node != other.node


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, mode: int):
    load_or_create_key(tmp_path, Random(1))
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(RequestRefused, match=f"chmod 600 {tmp_path}"):
        load_or_create_key(tmp_path, Random(1))


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), bytes(1_000_000)])
def test_a_damaged_key_is_told_and_left_as_it_is(tmp_path: Path, data: bytes):
    path = tmp_path / KEY_FILE
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(RequestRefused, match="damaged"):
        load_or_create_key(tmp_path, Random(1))
    assert path.read_bytes() == data


def test_where_there_is_no_key_there_is_none(tmp_path: Path):
    assert load_key(tmp_path / KEY_FILE) is None


def test_what_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(RequestRefused, match="cannot be read"):
        load_or_create_key(tmp_path, Random(1))
