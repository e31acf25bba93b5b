"""Where chat templates run: Jinja's sandbox, in which loops are counted and texts are measured. Pure.

A template comes with a file from anywhere. It is given what llama.cpp's own Jinja gives (common/jinja), which
is laxer than Jinja in places: what is nothing adds nothing to a text, and has no fields, nor is it an error.
"""

import json
from collections.abc import Iterable, Mapping, Sized
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.abilities import WatchedList, WatchedText

ROUNDS_MAX = 1_000_000
"""Of all loops of one rendering; a chat of a thousand messages with tools takes some ten thousand."""

TEXT_CHARACTERS_MAX = 64 * 1024 * 1024
"""Of any text that a template makes; a request body has fewer."""

UNBOUNDED_FILTERS = ("center", "format", "indent", "wordwrap", "urlize", "xmlattr", "pprint")
"""Of Jinja's: they make long texts of numbers. `indent` is replaced by a bounded one, the others are unknown
to llama.cpp too, or there for HTML."""

UNBOUNDED_METHODS = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs", "format_map", "translate"})
INDENT_MAX = 64


class TemplateRefused(RequestRefused):
    """The template itself says no, or is broken."""


class Program:
    """A template, ready to render. From one thread only: a rendering's rounds are counted in it."""

    def __init__(self, source: str) -> None:
        """Raises TemplateRefused for what is no template."""
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(source)
        except (TemplateError, RecursionError, ValueError) as error:
            raise TemplateRefused(f"the model's chat template is broken: {error}") from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises TemplateRefused."""
        self._environment.rounds_left = ROUNDS_MAX
        try:
            return self._template.render(variables)
        except TemplateRefused:
            raise
        except (TemplateError, RecursionError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise TemplateRefused(
                f"the model's chat template cannot say these messages: {error}. Change their order or roles."
            ) from error


class _Generation(Extension):
    """`{% generation %}` marks what training looks at; here it only says what is in it."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.ChainableUndefined,
            finalize=_written,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.rounds_left = ROUNDS_MAX
        filters, functions = cast(dict[str, Any], self.filters), cast(dict[str, Any], self.globals)
        for name in UNBOUNDED_FILTERS:
            del filters[name]
        filters |= {
            "tojson": _to_json,
            "indent": _indented,
            "replace": _replaced,
            "counted": self._counted,
            "joined": _joined,
        }
        functions["raise_exception"] = _raise
        cast(dict[str, Any], self.tests)["string"] = _is_text

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Every loop goes over a counted list, and what `~` joins is measured."""
        template = super()._parse(source, name, filename)
        for loop in list(template.find_all(nodes.For)):
            pairs = nodes.Const(isinstance(loop.target, nodes.Tuple))
            loop.iter = nodes.Filter(loop.iter, "counted", [pairs], [], None, None)
        for concat in list(template.find_all(nodes.Concat)):
            texts = nodes.List(concat.nodes)
            concat.nodes = [nodes.Filter(texts, "joined", [], [], None, None)]
        return template

    @pass_context  # so that nothing is counted when the template is compiled
    def _counted(self, _context: Context, values: Iterable[Any], pairs: bool) -> list[Any]:
        if isinstance(values, str):
            if isinstance(values, WatchedText):
                values.operations_.add("array_access")
            raise TypeError("a loop needs a list, and this is a text")
        if pairs and isinstance(values, Mapping):
            values = cast(Mapping[str, Any], values).items()
        counted: list[Any] = []
        for value in values:
            self.rounds_left -= 1
            if self.rounds_left < 0:
                raise SecurityError(f"its loops take more than {ROUNDS_MAX} rounds")
            counted.append(value)
        return counted

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in UNBOUNDED_METHODS and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Elsewhere what is not there is no error; what is out of bounds is one."""
        raise SecurityError(f"{attribute!r} is out of its bounds")

    def wrap_str_format(self, value: Any) -> Any:
        owner: Any = getattr(value, "__self__", None)
        if isinstance(owner, str) and str(value.__name__).startswith("format") and ":" in owner:
            raise SecurityError("only {} may stand in a text that is formatted")
        return super().wrap_str_format(value)

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner: Any = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, str(__obj.__name__), args)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and (isinstance(left, str) or isinstance(right, str)):
            return _joined([left, right])
        if operator == "%" and isinstance(left, str):
            raise TypeError("texts are not formatted with %")
        _check_size(_size_of_result(operator, left, right))
        return super().call_binop(context, operator, left, right)


def _is_text(value: Any) -> bool:
    if isinstance(value, WatchedText):
        value.operations_.add("test_is_string")
    return isinstance(value, str)


def _check_size(characters: int) -> None:
    if characters > TEXT_CHARACTERS_MAX:
        raise SecurityError("it makes a text beyond all bounds")


def _check_method(text: str, name: str, arguments: tuple[Any, ...]) -> None:
    """What could make a long text of short ones."""
    if name == "replace" and len(arguments) >= 2:
        _check_size(_size_of_replaced(text, *arguments[:2]))
    elif name == "join" and arguments and isinstance(arguments[0], list | tuple):
        joined = cast(list[Any], arguments[0])
        _check_size(sum(len(str(part)) + len(text) for part in joined))


def _size_of_replaced(text: str, old: Any, new: Any) -> int:
    return len(text) + text.count(str(old)) * max(0, len(str(new)) - len(str(old)))


def _replaced(text: Any, old: Any, new: Any) -> str:
    text = _as_text(text)
    _check_size(_size_of_replaced(text, old, new))
    return text.replace(str(old), str(new))


def _size_of_result(operator: str, left: Any, right: Any) -> int:
    if operator == "**":
        is_huge = isinstance(right, int | float) and right > 1000
        return TEXT_CHARACTERS_MAX + 1 if is_huge else 0
    sizes = [len(cast(Sized, value)) for value in (left, right) if isinstance(value, str | list | tuple)]
    if operator == "*":
        return sum(sizes) * max((value for value in (left, right) if isinstance(value, int)), default=1)
    return sum(sizes)


def _joined(values: list[Any]) -> str:
    """With `+` or `~`: nothing adds nothing."""
    texts = [_as_text(value) for value in values]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _written(value: Any) -> Any:
    """What stands between `{{` and `}}`: of lists their texts, of objects nothing (`gather_string_parts`)."""
    if isinstance(value, list | tuple) and not isinstance(value, WatchedList):
        return "".join(str(_written(item)) for item in cast(list[Any], value))
    return "" if value is None or isinstance(value, dict) else value


def _raise(message: str) -> NoReturn:
    raise TemplateRefused(str(message))


def _indented(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    step = width if isinstance(width, str) else " " * min(width, INDENT_MAX)
    lines = _as_text(text).split("\n")
    _check_size(sum(map(len, lines)) + len(lines) * len(step))
    return "\n".join(
        step + line if (place or first) and (line or blank) else line for place, line in enumerate(lines)
    )


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's: Jinja's own would escape for HTML."""
    if isinstance(indent, int):
        indent = min(indent, INDENT_MAX)
    return json.dumps(
        _as_json(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _shortened(number: float) -> int | float:
    """Six digits, and whole ones without a point: `value_to_json` of jinja/value.cpp streams it so."""
    text = f"{number:g}"
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast(dict[Any, Any], value)
        return {str(name): _as_json(item) for name, item in fields.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in cast(list[Any], value)]
    if isinstance(value, float):
        return _shortened(value)
    return None if isinstance(value, jinja2.Undefined) else value
