"""Tool calls where the engine cannot be trusted with them: decided here, then asked for in plain JSON.

llama-server drops `tools` without a word when the chat template knows none, takes a named `tool_choice` for
`auto`, and lets the model talk before a `required` call. In those cases the tools are described in the system
message, an enforced call is a JSON object under a grammar made from the tools' schemas, and tool_calls.py
turns the reply back into calls. Everything else goes to the engine as it came.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.exchange import Identify, Mender, TemplateAbilities
from mesh_llm.gateway.json_values import Json, as_list, as_object, object_at, objects_at, refuse, text
from mesh_llm.gateway.openai.tool_calls import CallRecogniser, ForcedCall
from mesh_llm.gateway.openai.tool_history import as_plain_messages, with_instructions

Mode = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    parameters: Json


@dataclass(frozen=True, slots=True)
class ToolChoice:
    mode: Mode
    names: frozenset[str]
    """The tools that may be called."""


def concern(body: Json) -> bool:
    """Whether it matters what the template can express."""
    messages = as_list(body.get("messages")) or []
    uses = (as_object(message) or {} for message in messages)
    return bool(body.get("tools")) or any(use.get("tool_calls") or use.get("role") == "tool" for use in uses)


def prepare(body: Json, template: TemplateAbilities, identify: Identify) -> tuple[Json, list[Mender]]:
    """The body as the engine can honour it, and the mender that finds the calls in its answer."""
    tools = read_tools(body)
    choice = read_choice(body, tools)
    _refuse_logprobs(body, tools)
    if not concern(body) or (template.tools and (choice.mode != "required" or template.enforced_calls)):
        return _native(body, tools, choice), []
    plain = {name: value for name, value in body.items() if name not in ("tools", "tool_choice")}
    plain.pop("parallel_tool_calls", None)
    if not template.tools:
        plain["messages"] = as_plain_messages(objects_at(body, "messages"))
    offered = [tool for tool in tools if tool.name in choice.names]
    if choice.mode == "none" or not offered:
        return plain, []
    _refuse_two_grammars(body, choice.mode)
    forced = choice.mode == "required"
    plain["messages"] = with_instructions(
        objects_at(plain, "messages"), instructions(offered, forced=forced), system_role=template.system_role
    )
    if forced:
        plain["response_format"] = _as_response_format(call_schema(offered))
        return plain, [ForcedCall(identify)]
    return plain, [CallRecogniser(frozenset(tool.name for tool in offered), identify)]


def _native(body: Json, tools: list[Tool], choice: ToolChoice) -> Json:
    if choice.names >= {tool.name for tool in tools}:
        return body if not isinstance(body.get("tool_choice"), dict) else body | {"tool_choice": choice.mode}
    allowed = [
        tool for tool in objects_at(body, "tools") if object_at(tool, "function").get("name") in choice.names
    ]
    return body | {"tools": allowed, "tool_choice": choice.mode}


def _refuse_logprobs(body: Json, tools: list[Tool]) -> None:
    """A call is not the text that the model wrote, so there would be nothing for them to belong to."""
    if tools and body.get("logprobs"):
        raise RequestRefused(
            "`logprobs` and `tools` do not go together. Leave one of them out.",
            code="unsupported_parameter",
            parameter="logprobs",
        )


def _refuse_two_grammars(body: Json, mode: Mode) -> None:
    kind = object_at(body, "response_format").get("type")
    constrained = kind in ("json_object", "json_schema") or body.get("grammar") or body.get("json_schema")
    if mode == "required" and constrained:
        raise RequestRefused(
            "An enforced tool call and a constrained `response_format` contradict each other. "
            "Send one of them.",
            code="unsupported_parameter",
            parameter="response_format",
        )


def read_tools(body: Json) -> list[Tool]:
    tools: list[Tool] = []
    for position, tool in enumerate(objects_at(body, "tools")):
        where = f"tools[{position}]."
        if tool.get("type", "function") != "function":
            refuse(f"{where}type", "`function`, the only kind served here")
        function = object_at(tool, "function", where)
        name = text(function, "name", f"{where}function.")
        if not name:
            refuse(f"{where}function.name", "a name")
        description = text(function, "description", f"{where}function.") or ""
        tools.append(Tool(name, description, object_at(function, "parameters", f"{where}function.")))
    return tools


def read_choice(body: Json, tools: list[Tool]) -> ToolChoice:
    """Raises RequestRefused for a choice that no tool can satisfy."""
    everything = frozenset(tool.name for tool in tools)
    wanted: Any = body.get("tool_choice")
    if wanted is None:
        return ToolChoice("auto" if tools else "none", everything)
    if isinstance(wanted, str):
        return _checked(ToolChoice(_mode(wanted), everything), everything)
    choice = as_object(wanted) or {}
    if choice.get("type") == "function":
        name = object_at(choice, "function", "tool_choice.").get("name")
        return _checked(ToolChoice("required", frozenset([str(name)])), everything)
    if choice.get("type") == "allowed_tools":
        allowed = object_at(choice, "allowed_tools", "tool_choice.")
        names = [object_at(tool, "function").get("name") for tool in objects_at(allowed, "tools")]
        return _checked(ToolChoice(_mode(allowed.get("mode")), frozenset(map(str, names))), everything)
    refuse("tool_choice", '"none", "auto", "required", a function or allowed_tools')


def _mode(word: Any) -> Mode:
    if word not in ("none", "auto", "required"):
        refuse("tool_choice", '"none", "auto" or "required"')
    return word


def _checked(choice: ToolChoice, known: frozenset[str]) -> ToolChoice:
    unknown = sorted(choice.names - known)
    if unknown or (choice.mode == "required" and not choice.names):
        raise RequestRefused(
            f"`tool_choice` asks for {', '.join(unknown) or 'a call'}, which is not among `tools`.",
            code="invalid_value",
            parameter="tool_choice",
        )
    return choice


def instructions(tools: list[Tool], *, forced: bool) -> str:
    """What a template with tool support would have told the model."""
    described = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters} for tool in tools
    ]
    lines = [
        "You can use these tools, each given with the JSON schema of its arguments:",
        *(json.dumps(tool, ensure_ascii=False) for tool in described),
        'To use a tool, reply with one JSON object and nothing else: {"name": TOOL, "arguments": {...}}.',
        "Reply with such an object now." if forced else "When no tool is needed, reply in plain text.",
    ]
    return "\n".join(lines)


def call_schema(tools: list[Tool]) -> Json:
    """A schema whose instances are calls of these tools, name first.

    Each tool's own schema becomes a definition, and references inside it are led there.
    """
    definitions = {f"tool{position}": tool.parameters for position, tool in enumerate(tools)}
    calls: list[Json] = []
    for tool, place in zip(tools, definitions, strict=True):
        arguments = {"$ref": f"#/$defs/{place}"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    moved = {place: _moved(schema, f"#/$defs/{place}") for place, schema in definitions.items()}
    objects = {place: {"type": "object"} | schema for place, schema in moved.items()}
    return {"anyOf": calls, "$defs": objects}


def _moved(schema: Any, place: str) -> Any:
    """The schema with local references that hold when it stands at `place`."""
    branches = as_list(schema)
    if branches is not None:
        return [_moved(branch, place) for branch in branches]
    found = as_object(schema)
    if found is None:
        return schema
    return {
        name: place + value[1:]
        if name == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for name, value in found.items()
    }


def _as_response_format(schema: Json) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "tool_call", "strict": True, "schema": schema}}
