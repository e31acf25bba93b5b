"""Between which texts a template puts thoughts, found out by trying. Pure.

Counterpart: `analyze_reasoning` of llama.cpp's chat-diff-analyzer.cpp, for templates that no family of
`families.py` has marks of its own for. White space around the marks is kept: answers that go on need it.
"""

import re
from collections.abc import Callable
from typing import Any

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.families import Thinking

Json = dict[str, Any]
Render = Callable[[list[Json], bool, bool], str]
"""(messages, add_generation_prompt, enable_thinking), in the template's own form of messages."""

USER: Json = {"role": "user", "content": "U_USER_MSG Hello END_U"}
SAID = "A_ASST_MSG I can help END_A"
THOUGHT = "REASON_PART I am thinking END_R"

MARK = r"(?:<[^>]*>|\[[^\]]*\])"
WRAPPED = re.compile(rf"({MARK}\s*){THOUGHT}(\s*{MARK}\s*)")
ENDED = re.compile(rf"{THOUGHT}\s*({MARK}\s*)")

OLD_QWEN = "content.split('</think>')"
"""In templates that only take thoughts out: Qwen's first, DeepSeek R1's."""

ANCHOR_CHARACTERS = 64


def find_thinking(source: str, render: Render) -> Thinking | None:
    """None: it says nothing of thoughts. `begin` may be empty: they begin with the answer."""
    shown, forced = _shown(render), _forced(render)
    if shown is not None and (shown.begin or not forced):
        return shown
    if shown is not None and forced is not None:
        return Thinking(forced.begin, shown.end)
    if forced is not None:
        return forced
    if OLD_QWEN in source and "reasoning_content" not in source and "<SPECIAL_12>" not in source:
        return Thinking("<think>", "</think>")
    return None


def _shown(render: Render) -> Thinking | None:
    """By an answer with thoughts (`compare_reasoning_presence`, `compare_reasoning_scope`)."""
    answers: tuple[Json, ...] = (
        {"role": "assistant", "content": SAID, "reasoning_content": THOUGHT},
        {"role": "assistant", "content": "", "reasoning_content": THOUGHT, "tool_calls": [CALL]},
    )
    for answer in answers:
        text = _rendered(render, [USER, answer], add=False)
        if text is not None and THOUGHT in text:
            wrapped, ended = WRAPPED.search(text), ENDED.search(text)
            if wrapped is not None:
                return Thinking(wrapped[1], wrapped[2])
            if ended is not None:
                return Thinking("", ended[1])
    return None


CALL: Json = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "FFF_FIRST_FUN_F", "arguments": {"AA_ARG_FST_AA": "VVVV"}},
}


def _forced(render: Render) -> Thinking | None:
    """By what the prompt ends with where thinking is off, and on (`compare_thinking_enabled`)."""
    off = _rendered(render, [USER], add=True, enable_thinking=False)
    on = _rendered(render, [USER], add=True, enable_thinking=True)
    if off is None or on is None or off == on:
        return None
    if on.startswith(off):
        begin = on.removeprefix(off)
        return Thinking(begin, "") if begin.strip() else None
    shorter, longer = sorted((off, on), key=len)
    anchor = shorter[-ANCHOR_CHARACTERS:]
    place = longer.rfind(anchor)
    marks = re.findall(MARK, longer[place + len(anchor) :]) if place >= 0 else []
    if len(marks) == 2:
        return Thinking(marks[0], marks[1])
    return None


def _rendered(render: Render, messages: list[Json], *, add: bool, enable_thinking: bool = True) -> str | None:
    try:
        return render(messages, add, enable_thinking)
    except RequestRefused:
        return None
