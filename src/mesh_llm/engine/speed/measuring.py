"""The speed of this machine as its node asks for it. Counterpart: `child.py` measures.

What a planner deals layers out by is the ratio between machines.
"""

import os
from collections.abc import Mapping

from mesh_llm.engine.asking import ask_child

MEASURE_S_MAX = 30.0
"""A first CUDA context takes seconds."""


async def measure_speed(threads: int, environment: Mapping[str, str] = os.environ) -> float:
    """Bytes of weights that a token goes through in a second, more than 0. Raises EngineFailed."""
    said = await ask_child("speed", "mesh_llm.engine.speed.child", [str(threads)], environment, MEASURE_S_MAX)
    return float(said)
