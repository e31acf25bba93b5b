"""`mesh-llm rotate-key`: a new key for the node of this home, which must not run meanwhile."""

import random
from argparse import Namespace

from mesh_llm.cli.arguments import home_of
from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.ids import short
from mesh_llm.mesh.home.rotation import rotate_key
from mesh_llm.mesh.home.running import find_running
from mesh_llm.runtime.clock import Clock


async def run(arguments: Namespace) -> int:
    home = home_of(arguments)
    if find_running(home) is not None:
        raise RequestRefused(f"The node in {home} is running. Stop it first, then rotate its key.")
    rotation = rotate_key(home, random.SystemRandom(), Clock().epoch())
    print(f"node {short(rotation.old)} is node {short(rotation.new)} from its next start on")
    return 0
