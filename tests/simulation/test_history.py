"""One seed is one history: without that no failure could be played again."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.mesh import mesh_of

ROOT = Path(__file__).parents[2]
HISTORY = """
import hashlib, sys
sys.path.insert(0, ".")
from tests.simulation.test_history import history
print(history(7))
"""


def history(seed: int) -> str:
    """Everything happens in it that draws lots or goes through a set."""
    mesh = mesh_of(8, seed, loss=0.1, duplication=0.1)
    mesh.world.run_for(20)
    mesh.world.partition(["n0", "n1", "n2"], ["n3", "n4", "n5", "n6", "n7"])
    mesh.change("n2", "Qwen3-8B")
    mesh.world.run_for(30)
    mesh.world.heal()
    mesh.crash("n4")
    mesh.pause("n5", 8)
    mesh.leave("n6")
    mesh.world.run_for(30)
    assert len(mesh.world.trace) > 100
    whole = "\n".join([*mesh.world.trace, repr(sorted(mesh.sent.items()))])
    return hashlib.sha256(whole.encode()).hexdigest()


def test_one_seed_is_one_history_and_another_is_another():
    assert history(7) == history(7)
    assert history(7) != history(8)


def test_a_history_does_not_depend_on_the_hash_seed():
    told = {
        subprocess.run(
            [sys.executable, "-c", HISTORY],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "2", "77")
    }
    assert told == {history(7)}
