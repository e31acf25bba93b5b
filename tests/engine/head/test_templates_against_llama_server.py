"""Prompts of templates in the style of every family, beside those of llama-server."""

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.conversation import read_conversation
from mesh_llm.engine.head.template import ChatTemplate, SpecialTexts
from tests.engine.head.family_templates import TEMPLATES

SMOLLM2 = SpecialTexts("<|im_start|>", "<|im_end|>", adds_beginning=False, adds_end=False)
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": 'Looks at "it" \u00e9',
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string"}, "far": {"type": "number", "maximum": 2.50}},
            "required": ["at"],
        },
    },
}
WAIT = {"type": "function", "function": {"name": "wait"}}


DAY = "24 Dec 2025"


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def called(*arguments, **more):
    calls = [
        {"id": f"call{place:05}", "type": "function", "function": {"name": "look", "arguments": given}}
        for place, given in enumerate(arguments)
    ]
    return said("assistant", None, tool_calls=calls, **more)


USER = said("user", "look at it")
ONE = '{"at": "the \\"sea\\"", "far": 1.5, "deep": {"a": [1, true, null]}}'
RESULT = said("tool", "blue", tool_call_id="call00000", name="look")
AGAIN = said("tool", '{"seen": 2}', tool_call_id="call00001")

CHATS = [
    {"messages": [USER]},
    {"messages": [said("system", "be brief"), USER]},
    {"messages": [said("developer", "be brief"), USER]},
    {"messages": [USER, said("assistant", " a sea \n"), said("user", "and?")]},
    {"messages": [said("user", [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])]},
    {"messages": [USER], "tools": [LOOK, WAIT]},
    {"messages": [USER], "tools": [LOOK], "tool_choice": "none"},
    {"messages": [USER], "tools": []},
    {"messages": [said("system", "s"), USER, called(ONE), RESULT], "tools": [LOOK, WAIT]},
    {"messages": [USER, called(ONE), RESULT, said("assistant", "blue."), USER], "tools": [LOOK]},
    {"messages": [USER, called(ONE, '{"at": "x"}'), RESULT, AGAIN], "tools": [LOOK]},
    {"messages": [USER, called({"at": "x"}, reasoning_content="hm"), RESULT], "tools": [LOOK]},
    {"messages": [USER, said("assistant", "a", reasoning_content="hm"), USER]},
    {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}},
    {"messages": [USER], "chat_template_kwargs": {"enable_thinking": True}},
    {"messages": [USER], "reasoning_effort": "high"},
    {"messages": [USER], "reasoning_effort": "none"},
    {"messages": [USER], "add_generation_prompt": False},
    {"messages": [USER, said("assistant", "Well, ")]},
    {"messages": [USER, said("assistant", "")]},
    {"messages": [USER, said("assistant", "Well, ", reasoning_content="hm")]},
    {"messages": [USER, said("assistant", "", reasoning_content="hm")]},
    {
        "messages": [USER, said("assistant", "Well, ", reasoning_content="hm")],
        "continue_final_message": "reasoning_content",
        "add_generation_prompt": False,
    },
    {"messages": [USER, called("{")]},
    {"messages": [USER, said("assistant", "a"), said("assistant", "b")]},
]


@pytest.fixture(scope="module")
def told(smollm2):
    """By the name of each template: what llama-server says it can, and its prompts."""
    dated = [_dated(chat) for chat in CHATS]
    cases = [[source, dated] for source in TEMPLATES.values()]
    lines = asyncio.run(_ask(json.dumps({"model": str(smollm2), "cases": cases})))
    return dict(zip(TEMPLATES, map(json.loads, lines), strict=True))


def _dated(chat):
    """On a day that does not depend on today."""
    return chat | {"chat_template_kwargs": {"date_string": DAY} | chat.get("chat_template_kwargs", {})}


async def _ask(line):
    program = Path(__file__).with_name("template_server.py")
    pipe = asyncio.subprocess.PIPE
    async with asyncio.timeout(110):
        process = await asyncio.create_subprocess_exec(sys.executable, program, stdin=pipe, stdout=pipe)
        try:
            out, _ = await process.communicate(f"{line}\n".encode())
        finally:
            if process.returncode is None:
                process.kill()
    return out.decode().splitlines()


@pytest.mark.real
@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_the_same(told, name):
    template = ChatTemplate(TEMPLATES[name], SMOLLM2)
    assert template.broken is None
    assert sum(prompt is not None for prompt in told[name][1]) >= len(CHATS) * 2 // 3
    for chat, expected in zip(CHATS, told[name][1], strict=True):
        assert (chat, rendered(template, chat)) == (chat, expected)


def rendered(template, chat):
    try:
        conversation = read_conversation(_dated(chat))
        return template.for_(conversation).prompt(conversation, datetime(2026, 3, 9)).text
    except RequestRefused:
        return None


@pytest.mark.real
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_said_to_be_able_to_do_the_same(told, name):
    assert ChatTemplate(TEMPLATES[name], SMOLLM2).abilities.to_fields() == told[name][0]
