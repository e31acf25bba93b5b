"""A model's own chat template: a conversation into the prompt that the model was taught.

Counterparts: `common_chat_templates_apply_jinja` of llama.cpp's chat.cpp, whose prompts these must equal,
and Hugging Face's `apply_chat_template`, whose settings and functions templates are written for.
`sandbox.py` runs them, `abilities.py` finds out what they can say; what the answer looks like is for
`parsing/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mesh_llm.engine.head.abilities import Abilities, effort_named, find_abilities, reasoning_kept
from mesh_llm.engine.head.conversation import Conversation
from mesh_llm.engine.head.families import Family, family_of
from mesh_llm.engine.head.family_messages import adapted, beginning, thinking_of_family
from mesh_llm.engine.head.messages import Message, fitted, plain_text
from mesh_llm.engine.head.sandbox import Program, TemplateRefused
from mesh_llm.engine.head.thinking_marks import find_thinking

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The form that llama.cpp falls back to (chat.cpp, CHATML_TEMPLATE_SRC) where a file has no template."""

CHATML_NAME = "chatml"
"""A file may name it instead of bringing one."""

DEVELOPERS_KNOWN = "<|channel|>"
"""In templates that know the role of a developer."""

EPOCH = datetime(2000, 1, 1)
"""For what is only tried."""


@dataclass(frozen=True, slots=True)
class SpecialTexts:
    """Of a vocabulary's tokens, and whether tokenising adds them: what it adds, a prompt must not have."""

    beginning: str
    end: str
    adds_beginning: bool
    adds_end: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    """Without what tokenising adds to it."""
    generation: str
    """Its end that belongs to the answer: who speaks, marks, and what the request has it begin with."""
    thinking_is_open: bool
    """It ends within thoughts."""
    content_is_open: bool = False
    """It ends within content: a message that the client began goes on."""
    begun_thoughts: str = ""
    begun_content: str = ""
    """Of that message."""


class ChatTemplate:
    """Render from one thread only: a rendering's rounds are counted in the template."""

    def __init__(
        self, source: str | None, special: SpecialTexts, source_for_tools: str | None = None
    ) -> None:
        """`source` None: ChatML. A broken one is told by `broken` and by every rendering."""
        self.is_fallback = source is None and source_for_tools is None
        if not source or source == CHATML_NAME:
            source = source_for_tools or CHATML
        self.source = source
        self.family = family_of(source)
        self.broken: str | None = None
        self._special = special
        self._for_tools = _readable(source_for_tools, special)
        try:
            self._program: Program | None = Program(source)
        except TemplateRefused as error:
            self.broken, self._program = str(error), None
        self.abilities = find_abilities(self._tried) if self._program is not None else Abilities()
        has_own, thinking = thinking_of_family(self.family, source)
        self.thinking = thinking if has_own else find_thinking(source, self._shown)
        """Its texts may begin and end with white space. None: nothing known, or channels (harmony)."""
        self.thinks = self.thinking is not None or self.family is Family.HARMONY

    def for_(self, conversation: Conversation) -> "ChatTemplate":
        """A file may have another template for conversations with tools."""
        return self._for_tools if self._for_tools is not None and conversation.tools else self

    @property
    def for_tools(self) -> "ChatTemplate":
        return self._for_tools or self

    def prompt(self, conversation: Conversation, now: datetime) -> Prompt:
        """Raises TemplateRefused; RequestRefused for what the conversation should have said otherwise."""
        goes_on = conversation.goes_on
        messages = conversation.messages if goes_on is None else conversation.messages[:-1]
        said = adapted(
            fitted(messages, self.abilities, knows_developers=DEVELOPERS_KNOWN in self.source),
            self.family,
            self.source,
        )
        variables = self._variables(conversation, now)
        without = self._rendered(said, variables)
        with_ = self._rendered(said, variables | {"add_generation_prompt": True})
        generation = _beyond(with_, without)
        if goes_on is None or not conversation.messages:
            return self._asked(
                with_ if conversation.add_generation_prompt else without, generation, conversation
            )
        return self._going_on(without, generation, conversation)

    def _asked(self, text: str, generation: str, conversation: Conversation) -> Prompt:
        if not conversation.add_generation_prompt:
            return Prompt(self._unfinished(text), "", thinking_is_open=False)
        if self.family is Family.GEMMA and text.endswith("<turn|>\n"):
            generation = "<|turn>model\n"  # the template adds none behind calls (gemma4.cpp)
            text += generation
        return Prompt(text, generation, self._is_open(generation))

    def _going_on(self, text: str, generation: str, conversation: Conversation) -> Prompt:
        last, text = conversation.messages[-1], self._unfinished(text)
        if not any(last.get(name) for name in ("content", "tool_calls", "reasoning_content", "name")):
            return Prompt(text, "", thinking_is_open=False)
        thoughts = last.get("reasoning_content", "")
        thinks_on = conversation.goes_on == "reasoning_content" or (
            conversation.goes_on == "either" and bool(thoughts) and not last["content"]
        )
        content = None if thinks_on else plain_text(last["content"], between="\n\n")
        begun = beginning(self.family, self.source, self.thinking, text, generation, thoughts, content)
        return Prompt(
            text + begun,
            begun,
            self._is_open(begun),
            content_is_open=content is not None,
            begun_thoughts=self._begun_thoughts(thoughts, are_over=content is not None),
            begun_content=content or "",
        )

    def _begun_thoughts(self, thoughts: str, *, are_over: bool) -> str:
        """With the white space before their end, which counts among them."""
        if self.thinking is None or not thoughts:
            return ""
        end = self.thinking.end
        return thoughts + end[: len(end) - len(end.lstrip())] if are_over else thoughts

    def _unfinished(self, text: str) -> str:
        """A harmony answer that is not the last ends otherwise (gpt-oss.cpp)."""
        if self.family is not Family.HARMONY:
            return text
        before, mark, after = text.rpartition("<|return|>")
        return f"{before}<|end|>{after}" if mark else text

    def _is_open(self, generation: str) -> bool:
        if self.family is Family.HARMONY:
            return generation.rfind("<|channel|>analysis<|message|>") > generation.rfind("<|end|>")
        if self.thinking is None or not self.thinking.begin.strip():
            return False
        begin = generation.rfind(self.thinking.begin.strip())
        return begin >= 0 and begin > generation.rfind(self.thinking.end.strip() or "\0")

    def _variables(self, conversation: Conversation, now: datetime) -> dict[str, Any]:
        own, tools = conversation.variables, conversation.tools
        thinks = conversation.enable_thinking
        variables: dict[str, Any] = {"enable_thinking": self.thinks if thinks is None else thinks}
        variables |= _at(now) | ({"tools": tools} if tools else {})
        if isinstance(own.get("preserve_reasoning"), bool):
            variables |= reasoning_kept(keep=own["preserve_reasoning"])
        if isinstance(own.get("reasoning_effort"), str) and own["reasoning_effort"]:
            variables |= effort_named(own["reasoning_effort"])
        return variables | own

    def _rendered(self, messages: list[Message], variables: Mapping[str, Any]) -> str:
        special = self._special
        given = {"messages": messages, "bos_token": special.beginning, "eos_token": special.end}
        text = self._run(given | dict(variables))
        if special.adds_beginning:
            text = text.removeprefix(special.beginning)
        return text.removesuffix(special.end) if special.adds_end else text

    def _run(self, variables: Mapping[str, Any]) -> str:
        if self._program is None:
            raise TemplateRefused(f"{self.broken}. Ask /v1/completions with a prompt instead.")
        return self._program.render(variables)

    def _tried(self, variables: Mapping[str, Any]) -> str:
        return self._run(_at(EPOCH) | dict(variables))

    def _shown(self, messages: list[Message], add_generation_prompt: bool, enable_thinking: bool) -> str:
        variables: dict[str, Any] = _at(EPOCH) | {"enable_thinking": enable_thinking}
        if add_generation_prompt:
            variables["add_generation_prompt"] = True
        fit = [message | {"content": _fit(message["content"], self.abilities)} for message in messages]
        return self._rendered(fit, variables)


def _readable(source: str | None, special: SpecialTexts) -> ChatTemplate | None:
    """A broken one is left aside, as llama.cpp does."""
    template = ChatTemplate(source, special) if source else None
    return template if template is not None and template.broken is None else None


def _fit(content: str, abilities: Abilities) -> Any:
    wants_parts = abilities.typed_content and not abilities.string_content
    return [{"type": "text", "text": content}] if wants_parts else content


def _at(now: datetime) -> dict[str, Any]:
    """As `common_chat_extra_context` of llama.cpp's chat.cpp."""
    return {
        "datetime": now.strftime("%b %d %Y"),
        "date_string": now.strftime("%d %b %Y"),
        "strftime_now": now.strftime,
    }


def _beyond(text: str, other: str) -> str:
    """What is left of `text` from where it differs from `other`."""
    same, beyond = 0, min(len(text), len(other)) + 1
    while beyond - same > 1:
        middle = (same + beyond) // 2
        if text[same:middle] == other[same:middle]:
            same = middle
        else:
            beyond = middle
    return text[same:]
