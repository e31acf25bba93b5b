"""What a request wants its answer to look like, read from its body. Pure.

Counterparts: `oaicompat_chat_params_parse` of server-common.cpp, and "json_schema" and "grammar" of
`make_llama_cmpl_schema` (server-schema.cpp). Whether a grammar is any good is told by who compiles it.
"""

from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import msgspec

from mesh_llm.core.errors import RequestRefused

Body = dict[str, Any]

LLGUIDANCE = "%llguidance"
"""A grammar that begins so is llguidance's, any other GBNF: `common_sampler_init` of sampling.cpp."""


BLANKS = r"( |\n{1,2}[ \t]{0,20})"
"""Between the parts of JSON: SPACE_RULE of json-schema-to-grammar.cpp, to which llama-server's chats keep.
(Here they may stand before a comma too.) With more a small model may go on with blanks for ever."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What sets a lazy grammar to work, when the answer has said it."""

    text: str
    kind: Literal["word", "pattern"] = "word"
    """word: the grammar begins with the text itself. pattern: with the first group of this regular
    expression (never one of a client's)."""


@dataclass(frozen=True, slots=True)
class Wish:
    grammar: str
    """GBNF whose start is `root`, or Lark for llguidance behind a line that begins with %llguidance."""
    triggers: tuple[Trigger, ...] = ()
    """None: from the first token on."""
    schema: str = ""
    """Of an answer that is JSON: what llguidance's `%json` takes. In chats more may stand around it."""


def read_wish(body: Body) -> Wish | None:
    """None where the request asks for no form. Raises RequestRefused."""
    grammar = body.get("grammar")
    if grammar is not None and not isinstance(grammar, str):
        _refuse("grammar", "`grammar` must be text: GBNF, or Lark behind a line %llguidance {}")
    schema = _schema(body)
    if schema is None:
        return Wish(grammar) if grammar else None
    if grammar:
        _refuse("grammar", "Cannot use both json_schema and grammar")
    return json_wish(schema)


def json_wish(schema: object) -> Wish:
    """JSON of a schema, which is an object or a boolean. Raises RequestRefused."""
    if not isinstance(schema, dict | bool):
        _refuse("json_schema", "A JSON schema must be an object")
    asked: Body | bool = schema if isinstance(schema, bool) else {}
    if isinstance(schema, dict):
        asked = {**cast(Body, schema or {"type": "object"}), "x-guidance": {"whitespace_pattern": BLANKS}}
    text = msgspec.json.encode(asked).decode()
    return Wish(f"{LLGUIDANCE} {{}}\nstart: %json {text}", schema=text)


def _schema(body: Body) -> object:
    """None: any text will do."""
    schema: object = body.get("json_schema")
    asked = body.get("response_format")
    if asked is None:
        return schema
    if not isinstance(asked, dict):
        _refuse("response_format", "`response_format` must be an object with a `type`")
    form = cast(Body, asked)
    match form.get("type"):
        case None | "" | "text":
            return schema
        case "json_object":
            given = form.get("schema")
            return given if given is not None else schema or {}
        case "json_schema":
            return _named_schema(form.get("json_schema"))
        case other:
            _refuse(
                "response_format",
                'response_format type must be one of "text", "json_object" or "json_schema", '
                f"but got: {other}",
            )


def _named_schema(named: object) -> object:
    if named is None:
        return {}
    if not isinstance(named, dict):
        _refuse("response_format", "`response_format.json_schema` must be an object with a `schema`")
    schema = cast(Body, named).get("schema")
    return {} if schema is None else schema


def _refuse(parameter: str, message: str) -> NoReturn:
    raise RequestRefused(f"{message}.", code="invalid_value", parameter=parameter)
