import subprocess
import sys
from pathlib import Path

import pytest

from mesh_llm.core.errors import DiskFull, RequestRefused
from mesh_llm.mesh.home.running import RUNNING_FILE, Running, announce, find_running, only_node_of

RUNNING = Running(123, 9337, 3131, "secret")

KILLED = """
import os, sys
from pathlib import Path
from mesh_llm.mesh.home.running import Running, announce, only_node_of
home = Path(sys.argv[1])
with only_node_of(home):
    announce(home, Running(os.getpid(), None, 3131, "secret"))
    os._exit(9)
"""


def test_a_second_node_with_the_same_home_is_refused(tmp_path: Path):
    with only_node_of(tmp_path), pytest.raises(RequestRefused, match="--home"), only_node_of(tmp_path):
        pass
    with only_node_of(tmp_path):
        pass


def test_commands_find_a_running_node_and_do_not_disturb_it(tmp_path: Path):
    assert find_running(tmp_path) is None
    with only_node_of(tmp_path):
        assert find_running(tmp_path) is None
        announce(tmp_path, RUNNING)
        assert find_running(tmp_path) == find_running(tmp_path) == RUNNING
        assert (tmp_path / RUNNING_FILE).stat().st_mode & 0o777 == 0o600
    assert find_running(tmp_path) is None
    assert not (tmp_path / RUNNING_FILE).exists()


def test_what_a_killed_node_left_behind_is_stale(tmp_path: Path):
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert process.returncode == 9
    assert (tmp_path / RUNNING_FILE).exists()
    assert find_running(tmp_path) is None
    with only_node_of(tmp_path):
        # A node that has just begun has not said where it is: what is found is not its own.
        assert find_running(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[1", b"x" * 10_000])
def test_a_damaged_file_finds_nobody(tmp_path: Path, data: bytes):
    with only_node_of(tmp_path):
        (tmp_path / RUNNING_FILE).write_bytes(data)
        assert find_running(tmp_path) is None


def test_a_home_that_cannot_be_written_to_is_told(tmp_path: Path):
    (tmp_path / "home").write_text("", encoding="utf-8")
    with pytest.raises(DiskFull, match="--home"), only_node_of(tmp_path / "home"):
        pass
