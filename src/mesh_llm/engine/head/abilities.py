"""What a chat template can say, found out by trying. Pure.

Counterpart: `caps_get` of llama.cpp's jinja/caps.cpp, which looks at which values a rendering touches; so
does this, with values that note it. What a family writes is told by `families.py`.
"""

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any, SupportsIndex

from mesh_llm.core.errors import RequestRefused

Json = dict[str, Any]
Render = Callable[[Mapping[str, Any]], str]
"""A template, given variables. Raises TemplateRefused."""

CONTENT = "STRING_MARKER"
REASONING = "<REASONING_CONTENT_PLACEHOLDER>"


@dataclass(frozen=True, slots=True)
class Abilities:
    """Without any knowledge: what llama.cpp supposes."""

    string_content: bool = True
    typed_content: bool = False
    """Lists of `{"type": "text", "text": ...}`."""
    system_role: bool = True
    tools: bool = True
    tool_calls: bool = True
    parallel_tool_calls: bool = True
    object_arguments: bool = False
    """It reads arguments of calls as values, not as text."""
    preserve_reasoning: bool = False
    reasoning_effort: bool = False

    def to_fields(self) -> dict[str, bool]:
        """As `chat_template_caps` of llama-server's /props."""
        return {f"supports_{name}": getattr(self, name) for name in self.__dataclass_fields__}


class WatchedText(str):
    """Notes what it is taken for."""

    def __init__(self, _text: str) -> None:
        self.operations_: set[str] = set()

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, SupportsIndex):
            self.operations_.add("array_access")
        return str.__getitem__(self, key)

    def __iter__(self) -> Iterator[str]:
        self.operations_.add("array_access")
        return super().__iter__()


class WatchedList(list[Any]):
    """Notes what it is taken for."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__(values)
        self.operations_: set[str] = set()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, SupportsIndex):
            self.operations_.add("array_access")
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        self.operations_.add("array_access")
        return super().__iter__()


class WatchedObject(dict[str, Any]):
    """Notes which of its fields are read."""

    def __init__(self, fields: Json) -> None:
        super().__init__({name: watched(value) for name, value in fields.items()})
        self.read_: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read_.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:  # type: ignore[override]
        self.read_.add(key)
        return super().get(key, default)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        self.read_.update(self)
        return super().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self.read_.update(self)
        return super().values()


def watched(value: Any) -> Any:
    if isinstance(value, dict):
        return WatchedObject(value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return [watched(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


@dataclass(frozen=True, slots=True)
class _Trial:
    text: str | None
    """None: the template refused."""
    messages: list[WatchedObject]
    tools: list[WatchedObject]


def _try(render: Render, messages: list[Json], **variables: Any) -> _Trial:
    """Some templates want thoughts in each answer: those get empty ones, if it does not go without."""
    trial = _tried(render, messages, variables)
    lacking = [message for message in messages if message["role"] == "assistant"]
    if trial.text is not None or not lacking:
        return trial
    filled = [{"reasoning_content": ""} | message if message in lacking else message for message in messages]
    return _tried(render, filled, variables)


def _tried(render: Render, messages: list[Json], variables: Json) -> _Trial:
    seen = [WatchedObject(message) for message in messages]
    tools = [WatchedObject(tool) for tool in variables.get("tools", [])]
    given = {"bos_token": "", "eos_token": "", "add_generation_prompt": True} | variables
    try:
        text = render(given | {"messages": seen, "tools": tools})
    except RequestRefused:
        return _Trial(None, seen, tools)
    return _Trial(text, seen, tools)


def find_abilities(render: Render) -> Abilities:
    string_content, typed_content = _content_forms(render)
    system = _try(render, [_said("system", "System message"), _said("user", "User message")])
    tools, calls, objects = _call_forms(render)
    return Abilities(
        string_content=string_content,
        typed_content=typed_content,
        system_role="content" in system.messages[0].read_,
        tools=tools,
        tool_calls=calls,
        parallel_tool_calls=_takes_parallel(render, as_objects=objects),
        object_arguments=objects,
        preserve_reasoning=_keeps_thoughts(render),
        reasoning_effort=_asks_for_effort(render),
    )


def _said(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def _content_forms(render: Render) -> tuple[bool, bool]:
    """Whether it reads texts, and lists of parts."""
    content = WatchedText(CONTENT)
    trial = _try(render, [_said("user", content)])
    typed = bool(content.operations_ & {"array_access", "selectattr"})
    as_text = trial.text is not None and not (typed and CONTENT not in trial.text)
    if "test_is_string" in content.operations_:
        parts = WatchedList([])
        message = WatchedObject(_said("user", ""))
        message["content"] = parts
        typed = typed or (_renders(render, [message]) and "array_access" in parts.operations_)
    return as_text, typed


def _renders(render: Render, messages: list[WatchedObject]) -> bool:
    given = {"messages": messages, "tools": [], "bos_token": "", "eos_token": ""}
    try:
        render(given | {"add_generation_prompt": True})
    except RequestRefused:
        return False
    return True


ARGUMENTS = {"arg": "value"}
TOOL = {
    "name": "tool",
    "type": "function",
    "function": {
        "name": "tool1",
        "description": "Tool description",
        "parameters": {
            "type": "object",
            "properties": {"arg": {"type": "string", "description": "Arg description"}},
            "required": ["arg"],
        },
    },
}


def _with_calls(arguments: Any, count: int = 1) -> list[Json]:
    function = {"name": "tool1", "arguments": arguments}
    calls = [
        {"id": f"call0000{place + 1}", "type": "function", "function": function} for place in range(count)
    ]
    return [
        _said("user", "User message"),
        _said("assistant", "", tool_calls=calls),
        _said("tool", "Tool response", tool_call_id="call00001"),
        _said("assistant", "The tool response was 'tool response'"),
        _said("user", "User message"),
    ]


def _call_forms(render: Render) -> tuple[bool, bool, bool]:
    """Whether it describes tools, writes calls, and reads their arguments as values."""
    with_objects = _try(render, _with_calls(ARGUMENTS), tools=[TOOL])
    tools, calls = True, True
    if with_objects.text is not None:
        tools, calls = _reads_tools(with_objects), _reads_calls(with_objects)
        if calls and "arg" in _call(with_objects, 0)["arguments"].read_:
            return tools, True, True
    with_texts = _try(render, _with_calls('{"arg": "value"}'), tools=[TOOL])
    if with_texts.text is None:
        return False, False, False
    return tools and _reads_tools(with_texts), calls and _reads_calls(with_texts), False


def _reads_tools(trial: _Trial) -> bool:
    return "name" in trial.tools[0]["function"].read_


def _reads_calls(trial: _Trial) -> bool:
    return "tool_calls" in trial.messages[1].read_


def _call(trial: _Trial, place: int) -> WatchedObject:
    return trial.messages[1]["tool_calls"][place]["function"]


def _takes_parallel(render: Render, *, as_objects: bool) -> bool:
    arguments = ARGUMENTS if as_objects else '{"arg": "value"}'
    trial = _try(render, _with_calls(arguments, 2), tools=[TOOL])
    return trial.text is not None and "function" in trial.messages[1]["tool_calls"][1].read_


def _keeps_thoughts(render: Render) -> bool:
    """Also of an answer that is not the last."""
    thought = _said("assistant", "Assistant message", reasoning_content=REASONING)
    later = _said("assistant", "Assistant message", reasoning_content="Reasoning content")
    user = _said("user", "User message")
    trial = _try(
        render, [user, thought, user, later, user], enable_thinking=True, **reasoning_kept(keep=True)
    )
    return trial.text is not None and REASONING in trial.text


def reasoning_kept(*, keep: bool) -> dict[str, bool]:
    """The names that templates have for it (`caps_apply_preserve_reasoning`)."""
    return {
        "preserve_thinking": keep,
        "clear_thinking": not keep,
        "truncate_history_thinking": not keep,
        "drop_thinking": not keep,
    }


def _asks_for_effort(render: Render) -> bool:
    """Another effort, another prompt: or the word itself is looked at."""
    user = [_said("user", "User message")]
    texts = {
        _try(render, user, enable_thinking=True, **_effort(effort)).text for effort in ("low", "high", None)
    }
    return len(texts) > 1


def _effort(effort: str | None) -> Json:
    return {} if effort is None else effort_named(effort)


def effort_named(effort: str) -> dict[str, str]:
    """The names that templates have for it (`caps_apply_reasoning_effort`)."""
    return {"reasoning_effort": effort, "reasoning_strength": effort}
