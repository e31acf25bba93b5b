"""Conversations with tool calls, retold for chat templates that know only plain messages."""

import json
from typing import Any

from mesh_llm.gateway.json_values import Json, as_list, as_object, object_at, objects_at


def as_plain_messages(messages: list[Json]) -> list[Json]:
    """Calls become the JSON the model would have written, results a user's words.

    Results in a row, and a user message after them, become one message: many templates insist on turns that
    alternate.
    """
    names: dict[str, str] = {}
    plain: list[Json] = []
    after_result = False
    for message in messages:
        is_result = message.get("role") == "tool"
        if is_result:
            retold: Json = {"role": "user", "content": _result_text(message, names)}
        else:
            retold = _retold(message, names)
        if after_result and retold["role"] == "user" and isinstance(retold.get("content"), str):
            plain[-1] = {"role": "user", "content": f"{plain[-1]['content']}\n\n{retold['content']}"}
        else:
            plain.append(retold)
        after_result = is_result
    return plain


def _retold(message: Json, names: dict[str, str]) -> Json:
    calls = objects_at(message, "tool_calls")
    if not calls:
        return message
    lines = [text_of(message.get("content"))] if message.get("content") else []
    for call in calls:
        function = object_at(call, "function")
        name = str(function.get("name"))
        names[str(call.get("id"))] = name
        lines.append(json.dumps({"name": name, "arguments": _arguments(function)}, ensure_ascii=False))
    kept = {key: value for key, value in message.items() if key not in ("tool_calls", "content")}
    return kept | {"content": "\n".join(lines)}


def _arguments(function: Json) -> Any:
    written = function.get("arguments")
    if not isinstance(written, str):
        return written or {}
    try:
        return json.loads(written or "{}")
    except ValueError:
        return written


def _result_text(message: Json, names: dict[str, str]) -> str:
    name = message.get("name") or names.get(str(message.get("tool_call_id")), "the tool")
    return f"Result of {name}: {text_of(message.get('content'))}"


def text_of(content: Any) -> str:
    """The text of a message's content, whether a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = [as_object(part) or {} for part in as_list(content) or []]
    return "\n".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))


def with_instructions(messages: list[Json], instructions: str, *, system_role: bool) -> list[Json]:
    """The messages with `instructions` in the system message, or before the user's first words."""
    place = ("system", "developer") if system_role else ("user",)
    for position, message in enumerate(messages):
        if message.get("role") in place:
            told = message | {
                "content": _joined(message.get("content"), instructions, before=not system_role)
            }
            return [*messages[:position], told, *messages[position + 1 :]]
    return [{"role": place[0], "content": instructions}, *messages]


def _joined(content: Any, instructions: str, *, before: bool) -> Any:
    parts = as_list(content)
    if parts is not None:
        return [{"type": "text", "text": f"{instructions}\n\n"}, *parts]
    if not content:
        return instructions
    return f"{instructions}\n\n{content}" if before else f"{content}\n\n{instructions}"
