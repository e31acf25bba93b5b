from pathlib import Path

import pytest

from mesh_llm.core.errors import DiskFull
from mesh_llm.mesh.home.files import replace_private


def test_nobody_else_can_read_what_is_written(tmp_path: Path):
    path = tmp_path / "home" / "secret"
    replace_private(path, b"one")
    replace_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_a_home_that_is_a_file_is_told_with_the_cure(tmp_path: Path):
    (tmp_path / "home").write_text("", encoding="utf-8")
    with pytest.raises(DiskFull, match="--home"):
        replace_private(tmp_path / "home" / "secret", b"one")
