"""`/v1/responses`: the request, told as chat completions. The way back is responses_answer.py.

Nothing is stored between requests, so fields that continue something are refused.
"""

from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.exchange import Exchange, Identify, TemplateAbilities
from mesh_llm.gateway.json_values import Json, as_list, as_object, flag, object_at, objects_at, refuse, text
from mesh_llm.gateway.openai import chat
from mesh_llm.gateway.openai.fields import refuse_meaningful
from mesh_llm.gateway.openai.responses_answer import ResponsesWriter

STATEFUL = ("previous_response_id", "conversation", "background", "prompt")
SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "parallel_tool_calls",
    "chat_template_kwargs",
)
LOGPROBS = "message.output_text.logprobs"


def exchange(
    body: Json, model: ServedModel, template: TemplateAbilities, identify: Identify, now: int
) -> Exchange:
    prepared, menders = chat.prepare(to_chat(body), model, template, identify)
    writer = ResponsesWriter(body, model.name, identify, now)
    return chat.mended(prepared, menders, writer, stream=flag(body, "stream"), tell_usage=True)


def to_chat(body: Json) -> Json:
    for name in STATEFUL:
        refuse_meaningful(body, name, "Nothing is stored here: send the whole conversation in `input`.")
    if body.get("truncation") not in (None, "disabled"):
        refuse_meaningful(body, "truncation", "Shorten `input` instead.")
    chat_body: Json = {name: body[name] for name in SAME if body.get(name) is not None}
    chat_body["messages"] = _messages(body)
    if body.get("max_output_tokens") is not None:
        chat_body["max_tokens"] = body["max_output_tokens"]
    effort = object_at(body, "reasoning").get("effort")
    if effort is not None:
        chat_body["reasoning_effort"] = effort
    if LOGPROBS in (as_list(body.get("include")) or []) or body.get("top_logprobs"):
        chat_body |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return chat_body | _format(object_at(body, "text")) | _tools(body)


def _messages(body: Json) -> list[Json]:
    given: Any = body.get("input")
    instructions = text(body, "instructions")
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if as_list(given) is None:
        refuse("input", "a string or a list of items")
    for position, item in enumerate(objects_at(body, "input")):
        _add_item(messages, item, f"input[{position}]")
    return messages


def _add_item(messages: list[Json], item: Json, where: str) -> None:
    match item.get("type", "message"):
        case "message":
            messages.append({"role": item.get("role"), "content": _content(item, where)})
        case "function_call":
            _add_call(messages, item)
        case "function_call_output":
            output: Any = item.get("output")
            content = (
                output if isinstance(output, str) else _parts(objects_at(item, "output", f"{where}."), where)
            )
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        case "reasoning":
            pass  # what the model thought before is not shown to it again: templates drop it as well
        case other:
            raise RequestRefused(
                f"`{where}` is an item of type {other}, which is not served. "
                "Send messages, function calls and their outputs.",
                code="unsupported_content",
                parameter=f"{where}.type",
            )


def _add_call(messages: list[Json], item: Json) -> None:
    """Calls in a row belong to one turn of the assistant."""
    function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
    call: Json = {"id": item.get("call_id"), "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1] = messages[-1] | {"tool_calls": [*messages[-1].get("tool_calls", []), call]}
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _content(item: Json, where: str) -> Any:
    content: Any = item.get("content")
    return content if isinstance(content, str) else _parts(objects_at(item, "content", f"{where}."), where)


def _parts(parts: list[Json], where: str) -> list[Json] | str:
    translated = [_part(part, f"{where}.content[{position}]") for position, part in enumerate(parts)]
    if all(part["type"] == "text" for part in translated):
        return "\n".join(str(part["text"]) for part in translated)
    return translated


def _part(part: Json, where: str) -> Json:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": text(part, "text", f"{where}.") or ""}
        case "refusal":
            return {"type": "text", "text": text(part, "refusal", f"{where}.") or ""}
        case "input_image" if isinstance(part.get("image_url"), str):
            return {"type": "image_url", "image_url": {"url": part["image_url"]}}
        case _:
            refuse(where, "an input_text, an output_text, a refusal, or an input_image with an `image_url`")


def _format(text_field: Json) -> Json:
    wanted = object_at(text_field, "format", "text.")
    match wanted.get("type", "text"):
        case "text":
            return {}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            schema = {name: wanted[name] for name in ("name", "strict", "schema") if name in wanted}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case _:
            refuse("text.format.type", '"text", "json_object" or "json_schema"')


def _tools(body: Json) -> Json:
    tools: list[Json] = []
    for position, tool in enumerate(objects_at(body, "tools")):
        if tool.get("type") != "function":
            refuse(f"tools[{position}].type", "`function`, the only kind served here")
        fields = {
            name: tool[name] for name in ("name", "description", "parameters", "strict") if name in tool
        }
        tools.append({"type": "function", "function": fields})
    told: Json = {"tools": tools} if tools else {}
    if body.get("tool_choice") is not None:
        told["tool_choice"] = _choice(body["tool_choice"])
    return told


def _choice(choice: Any) -> Any:
    """Responses name a function flat where chat nests it."""
    named = as_object(choice)
    if named is None:
        return choice
    if named.get("type") == "function":
        return {"type": "function", "function": {"name": named.get("name")}}
    if named.get("type") == "allowed_tools":
        tools = [_choice(tool) for tool in objects_at(named, "tools", "tool_choice.")]
        return {"type": "allowed_tools", "allowed_tools": {"mode": named.get("mode"), "tools": tools}}
    refuse("tool_choice", '"none", "auto", "required", a function or allowed_tools')
