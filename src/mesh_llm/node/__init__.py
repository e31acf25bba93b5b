"""A whole node: its parts, built and wired to one another. `run.py` is the picture of it."""

from mesh_llm.node.run import run_node
from mesh_llm.node.settings import Doors, NodeSettings

__all__ = ["Doors", "NodeSettings", "run_node"]
