"""A chat request as the head understands it: its prompt, and how the answer is to be read and kept in form.
Pure.

Counterparts: `oaicompat_chat_params_parse` of llama-server's server-common.cpp and `common_chat_session` of
llama.cpp's chat.cpp.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.choices import Verbatim
from mesh_llm.engine.head.constraints.wishes import Wish
from mesh_llm.engine.head.messages import Message, read_messages
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser
from mesh_llm.engine.head.requests import Body, Fields
from mesh_llm.engine.head.template import ChatTemplate
from mesh_llm.engine.head.unserved import refuse_tool_messages


@dataclass(frozen=True, slots=True)
class Chat:
    prompt: str
    parser: Callable[[], AnswerParser]
    """A new one for each choice."""
    wish: Wish | None = None
    shown: frozenset[str] = frozenset()
    """Texts of control tokens that the parser must see."""
    stops: tuple[str, ...] = ()
    """Beside those that were asked for."""


def read_chat(body: Body, fields: Fields, template: ChatTemplate, now: datetime) -> Chat:
    """Raises RequestRefused, TemplateRefused."""
    if "messages" not in body:
        raise RequestRefused("'messages' is required", parameter="messages")
    if fields.top_logprobs is not None and fields.logprobs is not True:
        raise RequestRefused("top_logprobs requires logprobs to be set to true", parameter="top_logprobs")
    refuse_tool_messages(body["messages"])
    messages: list[Message] = read_messages(body["messages"])
    prompt = template.render(
        messages,
        now,
        add_generation_prompt=fields.add_generation_prompt is not False,
        extra=fields.chat_template_kwargs,
    )
    return Chat(prompt, Verbatim)
