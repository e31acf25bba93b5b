"""The messages of a chat request, checked and brought into the one form that templates are given. Pure.

Counterparts: `common_chat_msgs_parse_oaicompat`, `to_json_oaicompat`, `messages_inp_normalizer` and the
work-arounds of llama.cpp's chat.cpp; a prompt must come out as llama-server's would, so even the order of the
fields is its own. What single families want otherwise is in `family_messages.py`.
"""

import json
from typing import Any, NoReturn, cast

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.abilities import Abilities

Message = dict[str, Any]

KEPT = ("reasoning_content", "name", "tool_call_id")
"""Texts that a message may carry beside its content."""


def read_messages(value: Any) -> list[Message]:
    """Raises RequestRefused, in the words of llama-server where it has some."""
    if not isinstance(value, list):
        raise RequestRefused("Expected 'messages' to be an array", parameter="messages")
    messages = cast(list[Any], value)
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        _refuse(f"`{where}` must be an object", where)
    given = cast(Message, value)
    role = given.get("role")
    if not isinstance(role, str):
        _refuse(f"`{where}.role` must be a string", f"{where}.role")
    calls = _calls(given.get("tool_calls"), f"{where}.tool_calls")
    if "content" not in given:
        if role != "assistant":
            _refuse("All non-assistant messages must contain 'content'", f"{where}.content")
        if "tool_calls" not in given:
            _refuse("Assistant message must contain either 'content' or 'tool_calls'!", f"{where}.content")
    message: Message = {"role": role, "content": _content(given.get("content"), f"{where}.content")}
    for name in KEPT:
        text = given.get(name)
        if text is not None and not isinstance(text, str):
            _refuse(f"`{where}.{name}` must be a string", f"{where}.{name}")
        if text:
            message[name] = text
    return message | {"tool_calls": calls} if calls else message


def _content(value: Any, where: str) -> str | list[Message]:
    """No content and an empty list are an empty text."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        _refuse("Expected 'content' to be a string or an array", where)
    parts = cast(list[Any], value)
    return [_part(part, f"{where}[{place}]") for place, part in enumerate(parts)] or ""


def _part(value: Any, where: str) -> Message:
    part = cast(Message, value) if isinstance(value, dict) else {}
    if part.get("type") != "text":
        raise RequestRefused(
            "unsupported content[].type: this model reads only text. Leave images and sound out.",
            code="unsupported_content",
            parameter=where,
        )
    if not isinstance(part.get("text"), str):
        _refuse(f"`{where}.text` must be a string", f"{where}.text")
    return {"type": "text", "text": part["text"]}


def _calls(value: Any, where: str) -> list[Message]:
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(f"`{where}` must be an array of calls", where)
    return [_call(call, f"{where}[{place}]") for place, call in enumerate(cast(list[Any], value))]


def _call(value: Any, where: str) -> Message:
    call = cast(Message, value) if isinstance(value, dict) else {}
    if call.get("type") != "function":
        _refuse(f"`{where}.type` must be `function`, the only kind of call", f"{where}.type")
    function = cast(Message, call["function"]) if isinstance(call.get("function"), dict) else {}
    name = function.get("name")
    if not isinstance(name, str):
        _refuse(f"`{where}.function.name` must be a string", f"{where}.function.name")
    if "arguments" not in function:
        _refuse(f"`{where}.function.arguments` is missing: say {{}} for none", f"{where}.function.arguments")
    identity = call.get("id")
    if identity is not None and not isinstance(identity, str):
        _refuse(f"`{where}.id` must be a string", f"{where}.id")
    told: Message = {
        "type": "function",
        "function": {"name": name, "arguments": _as_text(function["arguments"])},
    }
    return told | {"id": identity} if identity else told


def _as_text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def _refuse(message: str, parameter: str) -> NoReturn:
    raise RequestRefused(message, parameter=parameter)


def fitted(messages: list[Message], abilities: Abilities, *, knows_developers: bool) -> list[Message]:
    """As the template can read them. Raises RequestRefused for arguments of calls that are no JSON."""
    messages = [message | {"content": _in_form(message["content"], abilities)} for message in messages]
    if not knows_developers:
        messages = [
            message | {"role": "system"} if message["role"] == "developer" else message
            for message in messages
        ]
    if not abilities.system_role and messages and messages[0]["role"] == "system":
        messages = _merged(messages)
    if not abilities.object_arguments:
        return messages
    return [_with_objects(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _in_form(content: str | list[Message], abilities: Abilities) -> str | list[Message]:
    if isinstance(content, str):
        wants_parts = abilities.typed_content and not abilities.string_content
        return [{"type": "text", "text": content}] if wants_parts else content
    return content if abilities.typed_content or not abilities.string_content else plain_text(content)


def plain_text(content: str | list[Message], between: str = "\n") -> str:
    """Parts with `between` them; an empty beginning counts for none."""
    if isinstance(content, str):
        return content
    text = ""
    for part in content:
        text += (between if text else "") + part["text"]
    return text


def _merged(messages: list[Message]) -> list[Message]:
    """A system message goes before the text of the next one; alone it is left out."""
    system, *rest = messages
    if not rest:
        return []
    text = f"{plain_text(system['content'])}\n{plain_text(rest[0]['content'])}"
    return [rest[0] | {"content": text}, *rest[1:]]


def _with_objects(message: Message, where: str) -> Message:
    """Arguments of calls as values instead of text."""
    if "tool_calls" not in message:
        return message
    calls: list[Message] = []
    for place, call in enumerate(message["tool_calls"]):
        function = call["function"]
        try:
            arguments = json.loads(function["arguments"])
        except (ValueError, RecursionError) as error:
            raise RequestRefused(
                f"Failed to parse tool call arguments as JSON: {error}. Say {{}} for none.",
                parameter=f"{where}.tool_calls[{place}].function.arguments",
            ) from None
        calls.append(call | {"function": function | {"arguments": arguments}})
    return message | {"tool_calls": calls}
