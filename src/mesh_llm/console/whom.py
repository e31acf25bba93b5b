"""Whom a person means by an id, the beginning of one, or a name. Decides only."""

import re
from collections.abc import Mapping

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.ids import NodeId, short

DIGITS_MIN = 4
"""Of an id. With fewer, a name like `bad` or `fee` would mean somebody else by accident."""


def find_node(text: str, nodes: Mapping[NodeId, str]) -> NodeId:
    """Among `nodes`, names by id. An id or its beginning wins over a name.

    Raises RequestRefused where none or several fit.
    """
    digits = text.strip().lower()
    if re.fullmatch(f"[0-9a-f]{{{DIGITS_MIN},64}}", digits):
        by_id = [node for node in nodes if node.startswith(digits)]
        if by_id:
            return _the_only(text, by_id, nodes)
    by_name = [node for node, name in nodes.items() if name.lower() == text.strip().lower()]
    return _the_only(text, by_name, nodes)


def _the_only(text: str, found: list[NodeId], nodes: Mapping[NodeId, str]) -> NodeId:
    if len(found) == 1:
        return found[0]
    if found:
        told = ", ".join(f"{nodes[node]} {node[:16]}" for node in sorted(found))
        raise RequestRefused(f"Several nodes fit `{text}`: {told}. Give more digits of the id.")
    known = ", ".join(f"{name} {short(node)}" for node, name in sorted(nodes.items())) or "no other node"
    raise RequestRefused(
        f"No node fits `{text}`. Known: {known}. Give its name, or {DIGITS_MIN} or more digits of its id."
    )
