import sys
from pathlib import Path

import psutil
import pytest

from mesh_llm.runtime import hardware


def test_a_machine_without_limits_has_all_its_memory(tmp_path: Path):
    machine = hardware.measure((), cgroup=tmp_path)
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert 0 < machine.memory_bytes_available <= machine.memory_bytes
    assert machine.cores >= 1


def test_a_container_s_limits_count(tmp_path: Path):
    (tmp_path / "memory.max").write_text("1000000000\n", encoding="ascii")
    (tmp_path / "cpu.max").write_text("100000 100000\n", encoding="ascii")
    machine = hardware.measure((), cgroup=tmp_path)
    assert machine.memory_bytes == 1_000_000_000
    assert machine.memory_bytes_available <= 1_000_000_000
    assert machine.cores == 1


def test_a_container_without_limits_says_max(tmp_path: Path):
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "cpu.max").write_text("max 100000\n", encoding="ascii")
    assert hardware.measure((), cgroup=tmp_path).memory_bytes == psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac always has its GPU")
def test_cards_are_known_by_their_driver_s_entries(tmp_path: Path):
    assert hardware.cards_present(tmp_path) == ()
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "kfd").touch()
    assert hardware.cards_present(tmp_path) == ("NVIDIA", "AMD")
