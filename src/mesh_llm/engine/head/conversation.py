"""What a chat request says to its model's template, checked. Pure.

Counterpart: the part of `oaicompat_chat_params_parse` (llama-server's server-common.cpp) that makes
`common_chat_templates_inputs`. How the answer is drawn and kept in form is read elsewhere.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.messages import Message, read_messages

Json = dict[str, Any]

GoesOn = Literal["content", "reasoning_content", "either"]
"""What of the last message the answer goes on with; "either": its thoughts if it has nothing else."""


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: list[Message]
    """Of `read_messages`."""
    tools: list[Json] = field(default_factory=list[Json])
    """In the form that templates are given, whatever `tool_choice` says: `type` and `function`, in that
    `name`, `description`, `parameters`."""
    tool_choice: Literal["auto", "none", "required"] = "auto"
    """A named one counts as auto, as in llama-server: the gateway has seen to it before."""
    parallel_calls: bool | None = None
    """None: if the template can write them."""
    goes_on: GoesOn | None = None
    """The last message is a beginning of the answer."""
    add_generation_prompt: bool = True
    enable_thinking: bool | None = None
    """None: if the template knows of thinking."""
    tells_reasoning: bool = True
    """Thoughts apart from content (`reasoning_format`)."""
    variables: Json = field(default_factory=dict[str, Any])
    """For the template, of the request."""

    @property
    def may_call(self) -> bool:
        return bool(self.tools) and self.tool_choice != "none"


def read_conversation(body: Json) -> Conversation:
    """Raises RequestRefused, in the words of llama-server where it has some."""
    if "messages" not in body:
        raise RequestRefused("'messages' is required", parameter="messages")
    messages = read_messages(body["messages"])
    tools, choice = _tools(body.get("tools")), _choice(body.get("tool_choice"))
    if tools and choice != "none" and body.get("grammar"):
        raise RequestRefused("Cannot use custom grammar constraints with tools.", parameter="grammar")
    add = _boolean(body, "add_generation_prompt")
    goes_on = _goes_on(body.get("continue_final_message"), messages)
    is_told = bool(body.get("continue_final_message"))
    if goes_on is not None:
        _check_going_on(messages, is_both=is_told and add is not False)
    variables, enable_thinking = _variables(body)
    return Conversation(
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_calls=_boolean(body, "parallel_tool_calls"),
        goes_on=goes_on,
        add_generation_prompt=add is not False,
        enable_thinking=enable_thinking,
        tells_reasoning=_tells_reasoning(body.get("reasoning_format")),
        variables=variables,
    )


def _tools(value: Any) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestRefused("Expected 'tools' to be an array", parameter="tools")
    return [_tool(tool, f"tools[{place}]") for place, tool in enumerate(cast(list[Any], value))]


def _tool(value: Any, where: str) -> Json:
    tool = cast(Json, value) if isinstance(value, dict) else {}
    if tool.get("type") != "function":
        raise RequestRefused(
            f"`{where}.type` must be `function`, the only kind of tool", parameter=f"{where}.type"
        )
    function = cast(Json, tool["function"]) if isinstance(tool.get("function"), dict) else {}
    name, description = function.get("name"), function.get("description")
    parameters = function.get("parameters", {})
    if not isinstance(name, str) or not name:
        raise RequestRefused(f"`{where}.function.name` must be a name", parameter=f"{where}.function.name")
    if description is not None and not isinstance(description, str):
        raise RequestRefused(
            f"`{where}.function.description` must be a string",
            parameter=f"{where}.function.description",
        )
    if parameters is not None and not isinstance(parameters, dict):
        raise RequestRefused(
            f"`{where}.function.parameters` must be a JSON schema of an object",
            parameter=f"{where}.function.parameters",
        )
    told = {"name": name, "description": description or "", "parameters": cast(Json | None, parameters)}
    return {"type": "function", "function": told}


def _choice(value: Any) -> Literal["auto", "none", "required"]:
    if value == "none" or value == "required":
        return value
    if value is None or value in ("", "auto") or isinstance(value, dict):
        return "auto"
    raise RequestRefused(
        f"Invalid tool_choice: {value!r}. Say none, auto or required.", parameter="tool_choice"
    )


def _boolean(body: Json, name: str) -> bool | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestRefused(f"`{name}` must be true or false.", code="invalid_type", parameter=name)
    return value


def _goes_on(value: Any, messages: list[Message]) -> GoesOn | None:
    if value is None or value is False:
        return "either" if messages and messages[-1]["role"] == "assistant" else None
    if value is True:
        return "either"
    if value in ("content", "reasoning_content"):
        return cast(GoesOn, value)
    raise RequestRefused(
        'Invalid continue_final_message: expected a boolean, "content" or "reasoning_content"',
        parameter="continue_final_message",
    )


def _check_going_on(messages: list[Message], *, is_both: bool) -> None:
    is_said = bool(messages) and messages[-1]["role"] == "assistant"
    if is_both:
        raise RequestRefused(
            "Cannot set both add_generation_prompt and continue_final_message to true.",
            parameter="continue_final_message",
        )
    if is_said and len(messages) > 1 and messages[-2]["role"] == "assistant":
        raise RequestRefused(
            "Cannot have 2 or more assistant messages at the end of the list.", parameter="messages"
        )
    if is_said and messages[-1].get("tool_calls"):
        raise RequestRefused(
            "Cannot continue an assistant message that contains tool calls.", parameter="messages"
        )


def _variables(body: Json) -> tuple[Json, bool | None]:
    """The template's own, and whether it shall have its model think."""
    given = body.get("chat_template_kwargs")
    if given is not None and not isinstance(given, dict):
        raise RequestRefused(
            "`chat_template_kwargs` must be an object.", code="invalid_type", parameter="chat_template_kwargs"
        )
    variables: Json = dict(cast(Json, given or {}))
    enabled = variables.get("enable_thinking")
    if isinstance(enabled, str):
        raise RequestRefused(
            'invalid type for "enable_thinking" (expected boolean, got string)',
            parameter="chat_template_kwargs.enable_thinking",
        )
    thinks = enabled if isinstance(enabled, bool) else None
    effort = body.get("reasoning_effort")
    if effort == "none":
        variables.pop("reasoning_effort", None)
        return variables, False
    if isinstance(effort, str) and effort:
        variables["reasoning_effort"] = effort
    return variables, thinks


def _tells_reasoning(value: Any) -> bool:
    if value is None or value in ("auto", "deepseek", "deepseek-legacy"):
        return True
    if value == "none":
        return False
    raise RequestRefused(
        "Unknown reasoning format. Say none, auto or deepseek.", parameter="reasoning_format"
    )
