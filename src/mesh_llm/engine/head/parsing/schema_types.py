"""Which types of values a JSON schema lets pass, by what it says of types.

Counterpart: `common_chat_schema::value_types` of llama.cpp's json-schema.cpp.
"""

from collections.abc import Mapping
from typing import Any, cast

ALL = frozenset({"null", "boolean", "number", "integer", "string", "array", "object"})

_NAMES = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "list": "array",
    "dict": "object",
}


def types_of(schema: Any, document: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """`document` is what references lead into; one that leads in a circle allows nothing."""
    if not isinstance(schema, dict):
        return ALL if schema is not False else frozenset()
    known = as_object(cast(Any, schema))
    reference = known.get("$ref")
    if isinstance(reference, str):
        return (
            frozenset()
            if reference in seen
            else types_of(_at(document, reference), document, seen | {reference})
        )
    for several in ("anyOf", "oneOf"):
        if several in known:
            return frozenset[str]().union(*(types_of(one, document, seen) for one in as_list(known[several])))
    if "allOf" in known:
        return ALL.intersection(*(types_of(one, document, seen) for one in as_list(known["allOf"])))
    return _own_types(known)


def _own_types(schema: Mapping[str, Any]) -> frozenset[str]:
    if "const" in schema:
        return frozenset({_type_of(schema["const"])})
    if "enum" in schema:
        return frozenset(_type_of(value) for value in as_list(schema["enum"]))
    named = schema.get("type")
    if named is None:
        return _implied(schema)
    names = frozenset(name for name in as_list(named) if isinstance(name, str)) or {str(named)}
    return frozenset(names | {"integer"} if "number" in names else names)


def _implied(schema: Mapping[str, Any]) -> frozenset[str]:
    if "properties" in schema or "additionalProperties" in schema:
        return frozenset({"object"})
    if "items" in schema or "prefixItems" in schema:
        return frozenset({"array"})
    return frozenset({"string"}) if "pattern" in schema else ALL


def _type_of(value: Any) -> str:
    return _NAMES.get(type(value).__name__, "null")


def as_list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def as_object(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _at(document: Mapping[str, Any], reference: str) -> Any:
    """`#/a/b`; anything where that leads nowhere."""
    found: Any = document
    for key in reference.removeprefix("#/").split("/"):
        found = as_object(found).get(key)
    return found
