"""`/v1/messages`: the request, told as chat completions. The way back is messages_answer.py."""

import json
from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.anthropic.messages_answer import MessagesWriter
from mesh_llm.gateway.exchange import Exchange, Identify, TemplateAbilities
from mesh_llm.gateway.json_values import Json, as_list, as_object, flag, object_at, objects_at, refuse, text
from mesh_llm.gateway.openai import chat
from mesh_llm.gateway.openai.fields import refuse_meaningful

COUNT_PATH = "/v1/chat/completions/input_tokens"
"""Of the engine: counts what the same request to chat completions would have to read."""

SAME = ("temperature", "top_p", "top_k", "chat_template_kwargs")


def exchange(body: Json, model: ServedModel, template: TemplateAbilities, identify: Identify) -> Exchange:
    if body.get("max_tokens") is None:
        raise RequestRefused(
            "`max_tokens` is missing. Say how many tokens the answer may have.",
            code="missing_field",
            parameter="max_tokens",
        )
    prepared, menders = chat.prepare(to_chat(body), model, template, identify)
    prepared["return_progress"] = True  # tells the prompt's length before the first token, for message_start
    if body.get("stop_sequences"):
        prepared["verbose"] = True  # the only way to learn which sequence ended the answer
    writer = MessagesWriter(model.name, identify)
    return chat.mended(prepared, menders, writer, stream=flag(body, "stream"), tell_usage=True)


def prepare_count(body: Json, model: ServedModel, template: TemplateAbilities, identify: Identify) -> Json:
    prepared, _ = chat.prepare(to_chat(body), model, template, identify)
    return {name: value for name, value in prepared.items() if name != "stream"}


def to_chat(body: Json) -> Json:
    refuse_meaningful(body, "mcp_servers", "This node calls no MCP servers for you.")
    refuse_meaningful(body, "container", "This node runs no containers.")
    chat_body: Json = {name: body[name] for name in SAME if body.get(name) is not None}
    chat_body["messages"] = _system(body) + _messages(body)
    if body.get("max_tokens") is not None:
        chat_body["max_tokens"] = body["max_tokens"]
    if body.get("stop_sequences") is not None:
        chat_body["stop"] = body["stop_sequences"]
    return chat_body | _thinking(object_at(body, "thinking")) | _format(body) | _tools(body)


def _system(body: Json) -> list[Json]:
    system: Any = body.get("system")
    if not system:
        return []
    if isinstance(system, str):
        return [{"role": "system", "content": system}]
    blocks = objects_at(body, "system")
    return [
        {"role": "system", "content": "\n".join(text(block, "text", "system.") or "" for block in blocks)}
    ]


def _messages(body: Json) -> list[Json]:
    if "messages" not in body:
        raise RequestRefused(
            "`messages` is missing. Send a list of messages.", code="missing_field", parameter="messages"
        )
    messages: list[Json] = []
    for position, message in enumerate(objects_at(body, "messages")):
        where = f"messages[{position}]"
        if message.get("role") not in ("user", "assistant", "system"):
            refuse(f"{where}.role", '"user" or "assistant"')
        if isinstance(message.get("content"), str):
            messages.append({"role": message["role"], "content": message["content"]})
        else:
            messages += _from_blocks(message, where)
    return messages


def _from_blocks(message: Json, where: str) -> list[Json]:
    """Results first: they answer the assistant's calls, which stand right before."""
    if as_list(message.get("content")) is None:
        refuse(f"{where}.content", "a string or a list of blocks")
    parts: list[Json] = []
    calls: list[Json] = []
    results: list[Json] = []
    thoughts: list[str] = []
    for position, block in enumerate(objects_at(message, "content", f"{where}.")):
        match block.get("type"):
            case "tool_use":
                calls.append(_call(block))
            case "tool_result":
                results.append(_result(block, f"{where}.content[{position}]"))
            case "thinking":
                thoughts.append(str(block.get("thinking") or ""))
            case "redacted_thinking":
                pass
            case _:
                parts.append(_part(block, f"{where}.content[{position}]"))
    return results + _turn(message["role"], parts, calls, thoughts)


def _turn(role: str, parts: list[Json], calls: list[Json], thoughts: list[str]) -> list[Json]:
    if not (parts or calls or thoughts):
        return []
    turn: Json = {"role": role, "content": _joined(parts)}
    if calls:
        turn["tool_calls"] = calls
    if thoughts:
        turn["reasoning_content"] = "".join(thoughts)
    return [turn]


def _joined(parts: list[Json]) -> list[Json] | str:
    if all(part["type"] == "text" for part in parts):
        return "\n".join(str(part["text"]) for part in parts)
    return parts


def _call(block: Json) -> Json:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _result(block: Json, where: str) -> Json:
    content: Any = block.get("content")
    if content is None or isinstance(content, str):
        told: Any = content or ""
    else:
        told = _joined([_part(part, where) for part in objects_at(block, "content", f"{where}.")])
    if block.get("is_error") and isinstance(told, str):
        told = f"Error: {told}"
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": told}


def _part(block: Json, where: str) -> Json:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": text(block, "text", f"{where}.") or ""}
    source = object_at(block, "source", f"{where}.")
    if kind == "image" and source.get("type") == "base64":
        data = f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"
        return {"type": "image_url", "image_url": {"url": data}}
    if kind == "image" and isinstance(source.get("url"), str):
        return {"type": "image_url", "image_url": {"url": source["url"]}}
    raise RequestRefused(
        f"`{where}` is a block of type {kind}, which is not served. "
        "Send text, images, tool uses and results.",
        code="unsupported_content",
        parameter=where,
    )


def _thinking(thinking: Json) -> Json:
    match thinking.get("type"):
        case "enabled":
            return {"thinking_budget_tokens": thinking.get("budget_tokens") or -1}
        case "disabled":
            return {"reasoning_effort": "none"}
        case _:
            return {}


def _format(body: Json) -> Json:
    wanted = object_at(body, "output_format") or object_at(object_at(body, "output_config"), "format")
    if not wanted:
        return {}
    if wanted.get("type") != "json_schema":
        refuse("output_config.format.type", '"json_schema"')
    schema = {"name": "answer", "strict": True, "schema": object_at(wanted, "schema")}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _tools(body: Json) -> Json:
    tools: list[Json] = []
    for position, tool in enumerate(objects_at(body, "tools")):
        if tool.get("type", "custom") not in ("custom", None):
            refuse(f"tools[{position}].type", "`custom`, the only kind served here")
        function: Json = {"name": tool.get("name"), "parameters": object_at(tool, "input_schema")}
        if tool.get("description"):
            function["description"] = tool["description"]
        tools.append({"type": "function", "function": function})
    told: Json = {"tools": tools} if tools else {}
    choice = as_object(body.get("tool_choice"))
    if choice is None:
        if body.get("tool_choice") is not None:
            refuse("tool_choice", "an object")
        return told
    if choice.get("disable_parallel_tool_use"):
        told["parallel_tool_calls"] = False
    return told | {"tool_choice": _choice(choice)}


def _choice(choice: Json) -> Any:
    match choice.get("type"):
        case "auto" | "none" as mode:
            return mode
        case "any":
            return "required"
        case "tool":
            return {"type": "function", "function": {"name": choice.get("name")}}
        case _:
            refuse("tool_choice.type", '"auto", "any", "tool" or "none"')
