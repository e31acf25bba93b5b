"""`mesh-llm kick`: expels a node from the mesh of the running one."""

from argparse import Namespace

from mesh_llm.cli import tables
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.control import ask


async def run(arguments: Namespace) -> int:
    answer = await ask(home_of(arguments), "/api/kick", {"node": arguments.node})
    print(f"kicked {tables.plain(answer['kicked'])}: no member talks to it any more")
    return 0
