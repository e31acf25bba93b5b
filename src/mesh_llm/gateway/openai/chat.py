"""`/v1/chat/completions`: the request checked and prepared. Responses and Messages are translated into this.

The counterpart, chunks into answers, is chat_answer.py.
"""

from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.serving import ServedModel
from mesh_llm.gateway.exchange import Exchange, Identify, Mender, TemplateAbilities, Usage, Writer
from mesh_llm.gateway.json_values import Json, as_list, as_object, flag, object_at, objects_at, refuse, text
from mesh_llm.gateway.openai import tools
from mesh_llm.gateway.openai.chat_answer import ChatAnswer, ChatStream
from mesh_llm.gateway.openai.fields import (
    check_numbers,
    check_stop,
    choices_wanted,
    refuse_meaningful,
    without_engine_controls,
)
from mesh_llm.gateway.openai.usage import UsageMender

PATH = "/v1/chat/completions"
ROLES = ("system", "developer", "user", "assistant", "tool")
PARTS = ("text", "image_url", "input_audio", "input_video", "video_url", "refusal")


def exchange(body: Json, model: ServedModel, template: TemplateAbilities, identify: Identify) -> Exchange:
    """For a client that speaks chat completions itself."""
    stream = flag(body, "stream")
    prepared, menders = prepare(body, model, template, identify)
    tell_usage = not stream or flag(object_at(body, "stream_options"), "include_usage")
    if stream and not menders and choices_wanted(prepared) == 1:
        return Exchange(PATH, prepared, ChatStream(model.name), (), stream=True)
    writer = ChatStream(model.name) if stream else ChatAnswer(model.name)
    return mended(prepared, menders, writer, stream=stream, tell_usage=tell_usage)


def mended(
    prepared: Json, menders: list[Mender], writer: Writer, *, stream: bool, tell_usage: bool
) -> Exchange:
    """An exchange whose every chunk is read."""
    usage, choices = Usage(), choices_wanted(prepared)
    counter = UsageMender(usage, choices_per_prompt=choices, tell=tell_usage)
    body = prepared | {"stream_options": {"include_usage": True}}
    return Exchange(PATH, body, writer, (counter, *menders), stream, generations=choices, usage=usage)


def prepare(
    body: Json, model: ServedModel, template: TemplateAbilities, identify: Identify
) -> tuple[Json, list[Mender]]:
    """The body for the engine and what its answer needs. Raises RequestRefused."""
    check(body, model)
    prepared = _with_logprobs_that_work(without_engine_controls(body))
    prepared["model"] = model.name
    prepared["stream"] = True
    return tools.prepare(prepared, template, identify)


def check(body: Json, model: ServedModel) -> None:
    """Refuses what the engine would ignore, or answer with a 500."""
    if "messages" not in body:
        raise RequestRefused(
            "`messages` is missing. Send a list of messages.", code="missing_field", parameter="messages"
        )
    messages = objects_at(body, "messages")
    if not messages:
        refuse("messages", "a list of at least one message")
    for position, message in enumerate(messages):
        _check_message(message, f"messages[{position}].", model)
    choices_wanted(body)
    check_numbers(body)
    check_stop(body)
    refuse_meaningful(body, "functions", "Send `tools` instead.")
    refuse_meaningful(body, "function_call", "Send `tool_choice` instead.")
    refuse_meaningful(body, "audio", "This node answers in text.")
    refuse_meaningful(body, "web_search_options", "This node does not search the web.")
    if body.get("modalities") not in (None, ["text"]):
        refuse_meaningful(body, "modalities", 'Only ["text"] is.')


def _check_message(message: Json, where: str, model: ServedModel) -> None:
    role = text(message, "role", where)
    if role not in ROLES:
        refuse(f"{where}role", "one of " + ", ".join(ROLES))
    calls = objects_at(message, "tool_calls", where)
    for position, call in enumerate(calls):
        function = object_at(call, "function", f"{where}tool_calls[{position}].")
        if not isinstance(function.get("name"), str):
            refuse(f"{where}tool_calls[{position}].function.name", "a string")
    content: Any = message.get("content")
    if isinstance(content, str) or (content is None and role == "assistant"):
        return
    parts = as_list(content)
    if parts is None:
        refuse(f"{where}content", "a string or a list of parts")
    for position, part in enumerate(parts):
        _check_part(as_object(part) or {}, f"{where}content[{position}]", model)


def _check_part(part: Json, where: str, model: ServedModel) -> None:
    kind = part.get("type")
    if kind not in PARTS:
        refuse(f"{where}.type", "one of " + ", ".join(PARTS))
    if kind == "text" and not isinstance(part.get("text"), str):
        refuse(f"{where}.text", "a string")
    if kind not in ("text", "refusal") and not model.vision:
        raise RequestRefused(
            f"{model.name} reads only text: it was loaded without a projector for images. "
            "Leave the image out, or use a vision model.",
            code="unsupported_content",
            parameter=where,
        )


def _with_logprobs_that_work(body: Json) -> Json:
    """The engine takes `top_logprobs: 0` for none at all, and a missing one for 20."""
    if flag(body, "logprobs") and not body.get("top_logprobs"):
        body["top_logprobs"] = 1
    return body
