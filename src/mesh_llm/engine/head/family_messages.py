"""What single families want otherwise: how the template is given their messages, and how an answer goes on
from a beginning. Pure.

Counterparts: the files of common/parsers in llama.cpp, which do the same before and after a template renders.
"""

import json
from collections.abc import Callable
from typing import Any

from mesh_llm.engine.head.families import Family, Thinking
from mesh_llm.engine.head.messages import Message

GEMMA_NEW = "{#- OpenAI Chat Completions:"
"""In Gemma 4 templates that read results of tools as messages of their own."""

DEEPSEEK_ASSISTANT = "<\uff5cAssistant\uff5c>"


def adapted(messages: list[Message], family: Family, source: str) -> list[Message]:
    """For the template of this `source`."""
    adapt = ADAPTATIONS.get(family)
    return messages if adapt is None else adapt(messages, source)


def _for_harmony(messages: list[Message], _source: str) -> list[Message]:
    """Thoughts are `thinking`, and beside calls there is no content (gpt-oss.cpp)."""
    adapted: list[Message] = []
    for message in messages:
        message = dict(message)
        if "reasoning_content" in message:
            message["thinking"] = message["reasoning_content"]
            if message.get("tool_calls"):
                message.pop("content", None)
        adapted.append(message)
    return adapted


def _for_mistral(messages: list[Message], source: str) -> list[Message]:
    """Thoughts are a part of the content (ministral3.cpp). Mistral Small 3.2 has none."""
    if not is_ministral(source):
        return messages
    return [_as_blocks(message) for message in messages]


def is_ministral(source: str) -> bool:
    return "[SYSTEM_PROMPT]" in source and "[CALL_ID]" not in source


def _as_blocks(message: Message) -> Message:
    if message["role"] not in ("system", "assistant"):
        return message
    blocks: list[Message] = []
    if "reasoning_content" in message:
        blocks.append({"type": "thinking", "thinking": message["reasoning_content"]})
    content = message.get("content")
    if isinstance(content, str):
        blocks.append({"type": "text", "text": content})
    elif content:
        blocks += content
    rest = {name: value for name, value in message.items() if name != "reasoning_content"}
    return rest | {"content": blocks}


def _for_gemma(messages: list[Message], source: str) -> list[Message]:
    """Older templates read results of tools, and what is said to them, in the message that calls
    (`convert_tool_responses_gemma4`)."""
    if GEMMA_NEW in source:
        return messages
    turns: list[Message] = []
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        if message["role"] == "assistant" and message.get("tool_calls"):
            message, place = _gemma_turn(messages, place)
        turns.append(message)
    return turns


def _gemma_turn(messages: list[Message], place: int) -> tuple[Message, int]:
    """The turn whose calls stand before `place`, and where the next one begins."""
    calling = messages[place - 1]
    calls = calling["tool_calls"]
    responses: list[Message] = []
    while place < len(messages) and messages[place]["role"] == "tool":
        name = calls[len(responses)]["function"]["name"] if len(responses) < len(calls) else ""
        result = messages[place]
        responses.append(
            {"name": name or result.get("tool_call_id", ""), "response": _value_of(result.get("content"))}
        )
        place += 1
    turn: Message = {"role": "assistant", "tool_calls": calls}
    if responses:
        turn["tool_responses"] = responses
    if place < len(messages) and _is_plain_answer(messages[place]):
        turn["content"] = messages[place]["content"]
        place += 1
    if "reasoning_content" in calling:
        turn["reasoning_content"] = calling["reasoning_content"]
    return turn, place


def _is_plain_answer(message: Message) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls") and bool(message.get("content"))


def _value_of(content: Any) -> Any:
    if not isinstance(content, str):
        return content
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def _for_deepseek(messages: list[Message], source: str) -> list[Message]:
    """DeepSeek V4 wants results in the order of the calls (`deepseek_v4_sort_tool_results`)."""
    if not is_deepseek_v4(source):
        return messages
    adapted, order = list(messages), dict[str, int]()
    place = 0
    while place < len(adapted):
        message = adapted[place]
        if message["role"] == "assistant" and message.get("tool_calls"):
            order = {call["id"]: number for number, call in enumerate(message["tool_calls"]) if "id" in call}
        if message["role"] not in ("user", "tool"):
            place += 1
            continue
        end = place
        while end < len(adapted) and adapted[end]["role"] in ("user", "tool"):
            end += 1
        places = [at for at in range(place, end) if adapted[at]["role"] == "tool"]
        results = sorted(
            (adapted[at] for at in places), key=lambda result: order.get(result.get("tool_call_id", ""), 0)
        )
        for at, result in zip(places, results, strict=True):
            adapted[at] = result
        place = end
    return adapted


def is_deepseek_v4(source: str) -> bool:
    return "function_calls" not in source


ADAPTATIONS: dict[Family, Callable[[list[Message], str], list[Message]]] = {
    Family.HARMONY: _for_harmony,
    Family.MISTRAL_ARGS: _for_mistral,
    Family.GEMMA: _for_gemma,
    Family.DEEPSEEK_DSML: _for_deepseek,
}


def thinking_of_family(family: Family, source: str) -> tuple[bool, Thinking | None]:
    """Whether the family has marks of its own, and which (common/parsers; harmony has channels)."""
    match family:
        case Family.HARMONY:
            return True, None
        case Family.GEMMA:
            return True, Thinking("<|channel>thought\n", "<channel|>")
        case Family.DEEPSEEK_DSML:
            return True, Thinking("<think>", "</think>")
        case Family.QWEN_CODER:
            return True, Thinking("<think>\n", "\n</think>\n\n") if "<think>" in source else None
        case Family.MISTRAL_ARGS if is_ministral(source):
            return True, Thinking("[THINK]", "[/THINK]")
        case _:
            return False, None


def beginning(
    family: Family,
    source: str,
    thinking: Thinking | None,
    prompt: str,
    generation: str,
    thoughts: str,
    content: str | None,
) -> str:
    """What the prompt goes on with where the answer has begun: with these `thoughts`, and, unless it shall
    think on, with `content`. `prompt` ends before the answer, `generation` is what usually follows."""
    if family is Family.HARMONY:
        thinking = Thinking(
            "<|start|>assistant<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        )
        head = ""
    elif family is Family.GEMMA:
        head = "<|turn>model\n" if prompt.endswith("<turn|>\n") else ""
    elif family is Family.MISTRAL_ARGS and is_ministral(source):
        head = ""
    elif family is Family.DEEPSEEK_DSML:
        head = DEEPSEEK_ASSISTANT
        if is_deepseek_v4(source) and not thoughts:
            return f"{head}</think>{content or ''}"
    elif family is Family.QWEN_CODER:
        head = "<|im_start|>assistant\n"
    elif thinking is not None and thinking.begin:
        head = generation.partition(thinking.begin)[0]
    else:
        return generation + (content or "")
    text = head if thinking is None else head + thinking.begin + thoughts
    if content is None:
        return text
    return text + ("" if thinking is None else thinking.end) + content
