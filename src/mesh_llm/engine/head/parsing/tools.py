"""The tools that an answer may call, as parsers and grammars look at them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh_llm.engine.head.parsing.schema_types import as_list, as_object, types_of

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Schema = field(default_factory=dict[str, Any])
    """A JSON schema of an object; empty: it takes none (common_chat_tool_parameters of chat.cpp)."""

    @property
    def schema(self) -> Schema:
        return self.parameters or {"type": "object", "properties": {}}

    @property
    def properties(self) -> Mapping[str, Any]:
        return as_object(self.parameters.get("properties"))

    @property
    def required(self) -> frozenset[str]:
        named = (name for name in as_list(self.parameters.get("required")) if isinstance(name, str))
        return frozenset(self.properties.keys() & named)

    def types(self, argument: str) -> frozenset[str]:
        """Which JSON types its schema allows; all where it says nothing."""
        return types_of(self.properties.get(argument, {}), self.parameters)


def by_name(tools: Iterable[Tool]) -> Mapping[str, Tool]:
    return {tool.name: tool for tool in tools}
