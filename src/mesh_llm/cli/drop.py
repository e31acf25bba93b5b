"""`mesh-llm drop`: unloads a model of the running node; answers under way may finish."""

from argparse import Namespace

from mesh_llm.cli import tables
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.control import ask


async def run(arguments: Namespace) -> int:
    answer = await ask(home_of(arguments), "/api/drop", {"model": arguments.model})
    print(f"dropped {tables.plain(answer['dropped'])}")
    return 0
