"""A model's own chat template: messages into the prompt that it was taught.

Counterparts: Hugging Face's `apply_chat_template`, whose settings and functions templates are written for,
and llama-server's `/apply-template`, whose prompt this one must equal. A template comes with a file from
anywhere, so it runs in Jinja's sandbox, its loops are counted and its texts are measured.
"""

import json
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.messages import ContentForms, Message, fitted, plain_text

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The form that llama.cpp falls back to (chat.cpp, CHATML_TEMPLATE_SRC) where a file has no template."""

ROUNDS_MAX = 1_000_000
"""Of all loops of one rendering; a chat of a thousand messages with tools takes some ten thousand."""

TEXT_CHARACTERS_MAX = 64 * 1024 * 1024
"""Of any text that a template makes; a request body has fewer."""

MARK = "mark-of-content"


class TemplateRefused(RequestRefused):
    """The template itself says no, or is broken."""


@dataclass(frozen=True, slots=True)
class SpecialTexts:
    """Of a vocabulary's tokens, and whether tokenising adds them: what it adds, a prompt must not have."""

    beginning: str
    end: str
    adds_beginning: bool
    adds_end: bool


class ChatTemplate:
    """Render from one thread only: a rendering's rounds are counted in the template."""

    def __init__(self, source: str | None, special: SpecialTexts) -> None:
        """`source` None: ChatML. A broken one is told by `broken` and by every rendering."""
        self.source = CHATML if source is None else source
        self.is_fallback = source is None
        self.broken: str | None = None
        self._special = special
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(self.source)
        except (TemplateError, RecursionError, ValueError) as error:
            self.broken = f"the model's chat template is broken: {error}"
            self._template = self._environment.from_string("")
        self.forms = self._find_forms()

    def render(
        self,
        messages: list[Message],
        now: datetime,
        *,
        add_generation_prompt: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt, without what tokenising adds to it.

        `messages` are of `read_messages`; a last one by the assistant is a beginning that the answer goes on
        from. `extra` are variables of the request.

        Raises TemplateRefused.
        """
        if messages and messages[-1]["role"] == "assistant":
            return self._continuation(messages, now, extra or {})
        return self._render(messages, now, add_generation_prompt, extra or {})

    def _continuation(self, messages: list[Message], now: datetime, extra: Mapping[str, Any]) -> str:
        *before, last = messages
        if before and before[-1]["role"] == "assistant":
            raise RequestRefused(
                "Cannot have 2 or more assistant messages at the end of the list.", parameter="messages"
            )
        prompt = self._render(before, now, add_generation_prompt=True, extra=extra)
        return prompt + plain_text(last["content"], between="\n\n")  # common_chat_msg::render_content

    def _render(
        self, messages: list[Message], now: datetime, add_generation_prompt: bool, extra: Mapping[str, Any]
    ) -> str:
        text = self._rendered(fitted(messages, self.forms), now, add_generation_prompt, extra)
        special = self._special
        if special.adds_beginning:
            text = text.removeprefix(special.beginning)
        return text.removesuffix(special.end) if special.adds_end else text

    def _rendered(
        self, messages: list[Message], now: datetime, add_generation_prompt: bool, extra: Mapping[str, Any]
    ) -> str:
        if self.broken is not None:
            raise TemplateRefused(f"{self.broken}. Ask /v1/completions with a prompt instead.")
        variables = {
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._special.beginning,
            "eos_token": self._special.end,
            "tools": None,
            "documents": None,
            "enable_thinking": True,
            # As common_chat_extra_context of llama.cpp's chat.cpp.
            "datetime": now.strftime("%b %d %Y"),
            "date_string": now.strftime("%d %b %Y"),
            "strftime_now": now.strftime,
        }
        self._environment.rounds_left = ROUNDS_MAX
        try:
            return self._template.render({**variables, **extra})
        except TemplateRefused:
            raise
        except (TemplateError, RecursionError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise TemplateRefused(
                f"the model's chat template cannot say these messages: {error}. Change their order or roles."
            ) from error

    def _find_forms(self) -> ContentForms:
        """Tried out, as `caps_get` of llama.cpp's jinja/caps.cpp does."""
        text = MARK in self._tried([{"role": "user", "content": MARK}])
        as_parts = self._tried([{"role": "user", "content": [{"type": "text", "text": MARK}]}])
        system = self._tried([{"role": "system", "content": MARK}, {"role": "user", "content": "x"}])
        return ContentForms(
            text=text,
            parts=MARK in as_parts and "'type'" not in as_parts,  # else the list itself was written down
            system_role=MARK in system,
            developer_role="<|channel|>" in self.source,
        )

    def _tried(self, messages: list[Message]) -> str:
        try:
            return self._rendered(messages, datetime(2000, 1, 1), add_generation_prompt=True, extra={})
        except TemplateRefused:
            return ""


class _Generation(Extension):
    """`{% generation %}` marks what training looks at; here it only says what is in it."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        self.rounds_left = ROUNDS_MAX
        filters, functions = cast(dict[str, Any], self.filters), cast(dict[str, Any], self.globals)
        filters["tojson"] = _to_json
        filters["counted"] = self._counted
        functions["raise_exception"] = _raise

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Every loop goes over a counted list."""
        template = super()._parse(source, name, filename)
        for loop in list(template.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None)
        return template

    @pass_context  # so that nothing is counted when the template is compiled
    def _counted(self, _context: Context, values: Iterable[Any]) -> list[Any]:
        counted: list[Any] = []
        for value in values:
            self.rounds_left -= 1
            if self.rounds_left < 0:
                raise SecurityError(f"its loops take more than {ROUNDS_MAX} rounds")
            counted.append(value)
        return counted

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        size = _size_of_result(operator, left, right)
        if size > TEXT_CHARACTERS_MAX:
            raise SecurityError("it makes a text beyond all bounds")
        return super().call_binop(context, operator, left, right)


def _size_of_result(operator: str, left: Any, right: Any) -> int:
    if operator == "**":
        is_huge = isinstance(right, int | float) and right > 1000
        return TEXT_CHARACTERS_MAX + 1 if is_huge else 0
    sizes = [len(cast(Sized, value)) for value in (left, right) if isinstance(value, str | list | tuple)]
    if operator == "*":
        return sum(sizes) * max((value for value in (left, right) if isinstance(value, int)), default=1)
    return sum(sizes)


def _raise(message: str) -> NoReturn:
    raise TemplateRefused(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's: Jinja's own would escape for HTML."""
    if isinstance(value, jinja2.Undefined):
        raise TypeError(f"{value!r} is not JSON")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
