"""Which histories are played: 20 a scenario or MESH_LLM_SEEDS of them, and all that ever failed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

COUNT = int(os.environ.get("MESH_LLM_SEEDS", "20"))
FAILED_ONCE = Path(__file__).with_name("seeds.txt")


def every_seed(test: Callable[[int], None]) -> Callable[[int], None]:
    return pytest.mark.parametrize("seed", [*range(COUNT), *_replayed(test.__name__)])(test)


def _replayed(name: str) -> list[int]:
    lines = [line.split() for line in FAILED_ONCE.read_text("utf-8").splitlines() if not line.startswith("#")]
    return [int(seed) for test, seed in lines if test == name and int(seed) >= COUNT]
