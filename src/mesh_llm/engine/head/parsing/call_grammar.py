"""Grammars that keep calls of tools to their form, their arguments to their schemas."""

from collections.abc import Mapping, Sequence
from typing import Literal

from mesh_llm.engine.head.constraints.wishes import Wish
from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing.tools import Tool


def call_grammar(
    family: Family,
    tools: Sequence[Tool],
    choice: Literal["auto", "required"],
    *,
    control: Mapping[str, int],
    parallel: bool,
) -> Wish | None:
    """None: calls are left free. With "auto" it is lazy, else it rules what follows the thoughts.

    `control`: numbers of those tokens of `preserved` that are control tokens of the model, by their text: in
    a grammar they are not the text that they look like.
    """
    return None
