"""JSON as strangers send it: typed access that refuses with the field's name."""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from mesh_llm.core.errors import RequestRefused

Json = dict[str, Any]


def parse_object(body: bytes) -> Json:
    """A request's body. Raises RequestRefused unless it is one JSON object."""
    try:
        value: Any = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(
            f"The body is not JSON ({error}). Send a JSON object.", code="invalid_json"
        ) from None
    found = as_object(value)
    if found is None:
        raise RequestRefused("The body is JSON, but not an object. Send a JSON object.", code="invalid_json")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(written: str) -> float:
    """`1e999` would become infinite, which no JSON can say to an engine."""
    value = float(written)
    if math.isinf(value):
        raise ValueError(f"{written[:20]} is beyond all numbers")
    return value


def dump(value: Any) -> bytes:
    """Text as it is, for people who read answers with curl; escaped where it holds a lone surrogate."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def as_object(value: Any) -> Json | None:
    return cast(Json, value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    return cast(list[Any], value) if isinstance(value, list) else None


def refuse(parameter: str, expected: str) -> NoReturn:
    raise RequestRefused(f"`{parameter}` must be {expected}.", code="invalid_type", parameter=parameter)


def flag(body: Json, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        refuse(name, "true or false")
    return bool(value)


def text(body: Json, name: str, where: str = "") -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        refuse(where + name, "a string")
    return value


def whole_number(body: Json, name: str, least: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        refuse(name, f"a whole number, {least} or more")
    return value


def object_at(body: Json, name: str, where: str = "") -> Json:
    """The object in a field; empty where it is absent."""
    value = body.get(name)
    found = as_object(value)
    if found is None and value is not None:
        refuse(where + name, "an object")
    return found or {}


def objects_at(body: Json, name: str, where: str = "") -> list[Json]:
    """The list of objects in a field; empty where it is absent."""
    value = body.get(name)
    if value is None:
        return []
    found = as_list(value)
    if found is None:
        refuse(where + name, "a list")
    return list(_each_object(found, where + name))


def _each_object(values: list[Any], name: str) -> Iterator[Json]:
    for position, value in enumerate(values):
        found = as_object(value)
        if found is None:
            refuse(f"{name}[{position}]", "an object")
        yield found
