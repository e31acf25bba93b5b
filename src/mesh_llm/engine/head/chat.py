"""A chat request as the head understands it: its prompt, and how the answer is to be read and kept in form.

Counterparts: `oaicompat_chat_params_parse` of llama-server's server-common.cpp and `common_chat_session` of
llama.cpp's chat.cpp.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.constraints.wishes import Wish
from mesh_llm.engine.head.conversation import Conversation, read_conversation
from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser, Form
from mesh_llm.engine.head.parsing.call_grammar import call_grammar
from mesh_llm.engine.head.parsing.deltas import Content, Delta, Reasoning
from mesh_llm.engine.head.parsing.parsers import parser_of, preserved
from mesh_llm.engine.head.parsing.schema_grammar import schema_grammar
from mesh_llm.engine.head.parsing.schema_parser import SchemaParser
from mesh_llm.engine.head.parsing.thinking import opening_of
from mesh_llm.engine.head.parsing.tools import Tool
from mesh_llm.engine.head.requests import Body, Fields
from mesh_llm.engine.head.template import ChatTemplate, Prompt
from mesh_llm.engine.llama.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Chat:
    prompt: str
    parser: Callable[[], AnswerParser]
    """A new one for each choice."""
    wish: Wish | None
    shown: frozenset[int]
    """Tokens that the parser must see although they are control tokens."""
    begun: tuple[Delta, ...] = ()
    """Of a message that goes on: what the client said of it."""


class ChatReader:
    """Of one model."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, identify: Callable[[], str]) -> None:
        """`identify` draws the id of a call."""
        self.template = template
        self._tokenizer = tokenizer
        self._identify = identify

    def prompt(self, body: Body, now: datetime) -> str:
        """Raises RequestRefused, TemplateRefused."""
        conversation = read_conversation(body)
        return self.template.for_(conversation).prompt(conversation, now).text

    def read(self, body: Body, fields: Fields, wish: Wish | None, now: datetime) -> Chat:
        """`wish`: what the request wants the answer to look like. Raises RequestRefused, TemplateRefused."""
        conversation = read_conversation(body)
        _check_probabilities(fields, conversation)
        template = self.template.for_(conversation)
        prompt = template.prompt(conversation, now)
        form = self._form(template, conversation, prompt, is_free=wish is None)
        marks = self._marks(preserved(template.family, template.thinking))
        if wish is not None and wish.schema:
            wish = schema_grammar(template.family, form, wish.schema, control=self._control(marks))
        if form.tools:
            wish = self._calls(template, conversation, form, marks)
            form = replace(form, calls_are_sure=wish is not None)
        parsers = _parsers(template.family, form, wish)
        return Chat(prompt.text, parsers, wish, frozenset(marks.values()), _begun(prompt))

    def _form(
        self, template: ChatTemplate, conversation: Conversation, prompt: Prompt, *, is_free: bool
    ) -> Form:
        """An answer of a schema calls nothing, as in llama-server."""
        goes_on = conversation.goes_on is not None
        may_call = conversation.may_call and is_free and template.abilities.tool_calls
        return Form(
            self._identify,
            tools=[_tool(tool["function"]) for tool in conversation.tools] if may_call else [],
            thinking=template.thinking,
            thoughts_are_content=not conversation.tells_reasoning,
            thinking_is_open=prompt.thinking_is_open,
            content_is_open=goes_on and not prompt.thinking_is_open,
            opening="" if goes_on else opening_of(prompt.generation, template.thinking),
        )

    def _calls(
        self, template: ChatTemplate, conversation: Conversation, form: Form, marks: Mapping[str, int]
    ) -> Wish | None:
        parallel = conversation.parallel_calls
        return call_grammar(
            template.family,
            form,
            "required" if conversation.tool_choice == "required" else "auto",
            control=self._control(marks),
            parallel=template.abilities.parallel_tool_calls if parallel is None else parallel,
        )

    def _control(self, marks: Mapping[str, int]) -> dict[str, int]:
        return {text: token for text, token in marks.items() if not self._tokenizer.piece(token)}

    def _marks(self, texts: frozenset[str]) -> dict[str, int]:
        """Those that are one token each: `common_sampling_add_preserved_tokens` of sampling.cpp."""
        cuts = {
            text: self._tokenizer.tokenize(text, add_special=False, parse_special=True)
            for text in sorted(texts)
        }
        return {text: cut[0] for text, cut in cuts.items() if len(cut) == 1}


def _parsers(family: Family, form: Form, wish: Wish | None) -> Callable[[], AnswerParser]:
    if wish is None or not wish.schema or form.content_is_open:
        return lambda: parser_of(family, form)
    thinking = form.thinking if form.thoughts_are_content else None
    return lambda: SchemaParser(parser_of(family, form), thinking)


def _begun(prompt: Prompt) -> tuple[Delta, ...]:
    thoughts, content = prompt.begun_thoughts, prompt.begun_content
    return ((Reasoning(thoughts),) if thoughts else ()) + ((Content(content),) if content else ())


def _tool(function: Body) -> Tool:
    return Tool(function["name"], function["parameters"] or {})


def _check_probabilities(fields: Fields, conversation: Conversation) -> None:
    if fields.top_logprobs is not None and fields.logprobs is not True:
        raise RequestRefused("top_logprobs requires logprobs to be set to true", parameter="top_logprobs")
    if fields.logprobs and conversation.tools and fields.stream:
        raise RequestRefused("logprobs is not supported with tools + stream", parameter="logprobs")
