"""The messages of a chat request, checked and brought into the one form that templates are given. Pure.

Counterpart: `common_chat_msgs_parse_oaicompat`, `messages_inp_normalizer` and the work-arounds of llama.cpp's
chat.cpp; a prompt must come out as llama-server's would.
"""

from dataclasses import dataclass
from typing import Any, cast

from mesh_llm.core.errors import RequestRefused

Message = dict[str, Any]

KEPT = ("reasoning_content", "name")
"""Texts that a message may carry beside its content."""


@dataclass(frozen=True, slots=True)
class ContentForms:
    """What a template can read."""

    text: bool
    parts: bool
    """Lists of `{"type": "text", "text": ...}`."""
    system_role: bool
    developer_role: bool


def read_messages(value: Any) -> list[Message]:
    """Raises RequestRefused, in the words of llama-server where it has some."""
    if not isinstance(value, list):
        raise RequestRefused("Expected 'messages' to be an array", parameter="messages")
    messages = cast(list[Any], value)
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RequestRefused(f"`{where}` must be an object", parameter=where)
    given = cast(Message, value)
    role = given.get("role")
    if not isinstance(role, str):
        raise RequestRefused(f"`{where}.role` must be a string", parameter=f"{where}.role")
    if "content" not in given:
        who = "Assistant message must contain" if role == "assistant" else "All messages must contain"
        raise RequestRefused(f"{who} 'content'", parameter=f"{where}.content")
    message: Message = {"role": role, "content": _content(given["content"], f"{where}.content")}
    for name in KEPT:
        text = given.get(name)
        if text is not None and not isinstance(text, str):
            raise RequestRefused(f"`{where}.{name}` must be a string", parameter=f"{where}.{name}")
        if text:
            message[name] = text
    return message


def _content(value: Any, where: str) -> str | list[Message]:
    """No content and an empty list are an empty text."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise RequestRefused("Expected 'content' to be a string or an array", parameter=where)
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
        raise RequestRefused(f"`{where}.text` must be a string", parameter=f"{where}.text")
    return {"type": "text", "text": part["text"]}


def fitted(messages: list[Message], forms: ContentForms) -> list[Message]:
    """As the template can read them."""
    messages = [message | {"content": _in_form(message["content"], forms)} for message in messages]
    if not forms.developer_role:
        messages = [
            message | {"role": "system"} if message["role"] == "developer" else message
            for message in messages
        ]
    if not forms.system_role and messages and messages[0]["role"] == "system":
        return _merged(messages)
    return messages


def _in_form(content: str | list[Message], forms: ContentForms) -> str | list[Message]:
    if isinstance(content, str):
        return content if forms.text or not forms.parts else [{"type": "text", "text": content}]
    return content if forms.parts else plain_text(content)


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
