"""A head beside llama-server with the same file: are their answers the same? Prints the table of docs/api.md.

    python -m bench.comparison MODEL.gguf

Each case is one request, sent to both. Compared are status, text, finish reason, usage and tool calls; what
differs is printed. Needs two engines at once and a few minutes.
"""

import asyncio
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engine.head.heads import Client, client, lone_head, whole_engine
from tests.engine.head.tool_model import TOOL, write_tool_model

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at",
    "List three colours:\n1.",
    "Die Hauptstadt von Deutschland ist",
    "The derivative of x^2 is",
    "In 1969, humans first",
    "Dear Sir or Madam,\n\n",
    "日本の首都は",
    "1, 2, 3, 4,",
    "<html>\n<head>",
)
CHATS = (
    "Name a fruit and say why.",
    "Repeat after me: one two three four five six seven eight.",
    "What is two plus two?",
    "Write one sentence about the sea.",
    "Who are you?",
    "Translate to French: good morning.",
)
SAMPLINGS: dict[str, dict[str, Any]] = {
    "usual samplers": {"temperature": 0.8},
    "hot, top_p": {"temperature": 1.5, "top_k": 0, "top_p": 0.7},
    "penalties": {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    "typical": {"typical_p": 0.6, "min_keep": 2},
    "XTC": {"xtc_probability": 0.5, "xtc_threshold": 0.05},
    "dynamic temperature": {"dynatemp_range": 0.5, "dynatemp_exponent": 1.2},
    "DRY": {"dry_multiplier": 0.8, "dry_allowed_length": 1},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": 4.0},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": 4.0},
    "logit bias": {"logit_bias": {" the": -5, "28": -100}},
    "order of samplers": {"samplers": ["top_k", "min_p", "temperature"], "top_k": 20},
}
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": COLOUR}}},
    "json_object": {"response_format": {"type": "json_object"}},
    "grammar": {"grammar": 'root ::= ("yes" | "no") ", " [a-z]+ "."'},
}
CALLING: dict[str, dict[str, Any]] = {
    "tools, auto": {"tool_choice": "auto"},
    "tools, none": {"tool_choice": "none"},
    "tools, required": {"tool_choice": "required", "parallel_tool_calls": False},
    "tools, two at once": {"tool_choice": "required", "parallel_tool_calls": True},
    "tools, auto with thoughts": {"chat_template_kwargs": {"enable_thinking": True}},
    "tools, results": {},
}
WEATHER = (
    "How is the weather in Rome?",
    "Call the tool for Paris, seven days.",
    "Is it going to rain in Oslo tomorrow?",
    "Hello!",
)
CALLED = [
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call00001",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"town": "Rome", "days": 1}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call00001", "content": "It rains frogs."},
]
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "no prompt": (COMPLETIONS, {}),
    "no messages": (CHAT, {}),
    "an empty object as prompt": (COMPLETIONS, {"prompt": {}}),
    "an unknown token": (COMPLETIONS, {"prompt": [999_999]}),
    "beyond the context": (COMPLETIONS, {"prompt": "hello world " * 3000}),
    "too many choices": (COMPLETIONS, {"prompt": "x", "n": 99}),
    "temperature in words": (COMPLETIONS, {"prompt": "x", "temperature": "hot"}),
    "a broken grammar": (COMPLETIONS, {"prompt": "x", "grammar": "root ::= ("}),
    "an unknown response_format": (
        CHAT,
        {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "yaml"}},
    ),
    "two assistants at the end": (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "a"},
                {"role": "assistant", "content": "b"},
            ]
        },
    ),
}


@dataclass(frozen=True)
class Case:
    group: str
    path: str
    body: dict[str, Any]


def cases() -> Iterator[Case]:
    greedy: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
    for prompt in PROMPTS:
        yield Case("completions, greedy", COMPLETIONS, {"prompt": prompt, **greedy})
        yield Case(
            "completions, stop string", COMPLETIONS, {"prompt": prompt, **greedy, "stop": ["\n", " a"]}
        )
    for said in CHATS:
        asked = {"messages": [{"role": "user", "content": said}], **greedy}
        yield Case("chat, greedy", CHAT, asked)
        system = {"role": "system", "content": "Be brief."}
        yield Case("chat, with a system message", CHAT, asked | {"messages": [system, *asked["messages"]]})
        begun = {"role": "assistant", "content": "Well, "}
        yield Case("chat, prefilled", CHAT, asked | {"messages": [*asked["messages"], begun]})
    for (name, fields), (place, prompt) in itertools.product(SAMPLINGS.items(), enumerate(PROMPTS[:3])):
        sampled = {"prompt": prompt, "max_tokens": 24, "seed": 7 + place, **fields}
        yield Case(f"seeded, {name}", COMPLETIONS, sampled)
    for (name, fields), said in itertools.product(CONSTRAINTS.items(), CHATS):
        asked = {"messages": [{"role": "user", "content": said}], **greedy, **fields}
        yield Case(f"constrained, {name}", CHAT, asked)
    for prompt in PROMPTS[:4]:
        yield Case("completions, n = 2", COMPLETIONS, {"prompt": prompt, **greedy, "n": 2, "max_tokens": 8})
        yield Case("completions, log-probabilities", COMPLETIONS, {"prompt": prompt, **greedy, "logprobs": 3})
    yield Case("completions, several prompts", COMPLETIONS, {"prompt": list(PROMPTS[:3]), **greedy})
    for path, body in REFUSED.values():
        yield Case("refused", path, body)


def cases_with_tools() -> Iterator[Case]:
    """For a model whose template knows them. A call is as long as it must be."""
    quiet: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
    for (name, fields), said in itertools.product(CALLING.items(), WEATHER):
        messages = [{"role": "user", "content": said}, *(CALLED if name == "tools, results" else [])]
        body = {"messages": messages, "tools": [TOOL], "temperature": 0, "max_tokens": 60}
        yield Case(name, CHAT, body | quiet | fields)


def told(status: int, answer: Any) -> Any:
    """What must be the same."""
    if status != 200:
        return status, answer["error"]["type"]
    answers = answer if isinstance(answer, list) else [answer]
    return status, [_choice(choice, each) for each in answers for choice in each["choices"]]


def _choice(choice: Any, answer: Any) -> Any:
    message = choice.get("message") or {"content": choice.get("text")}
    calls = [dict(call["function"]) for call in message.get("tool_calls") or []]
    scores = (choice.get("logprobs") or {}).get("content") or []
    text = (message["content"] or "").removesuffix("\ufffd")  # half a character, which the head leaves out
    usage = answer["usage"]
    counts = () if isinstance(answer.get("choices"), list) and len(answer["choices"]) > 1 else _counts(usage)
    return text, choice["finish_reason"], calls, [score["token"] for score in scores], counts


def _counts(usage: Any) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


async def difference(case: Case, theirs: Client, ours: Client) -> str | None:
    body = case.body | {"cache_prompt": False}
    expected = told(*await theirs.post(case.path, body))
    got = told(*await ours.post(case.path, body))
    return None if got == expected else f"{case.body}\n  llama-server: {expected}\n  head:         {got}"


async def compare(model: Path, cases: Iterable[Case], same: Counter[str], asked: Counter[str]) -> None:
    async with whole_engine(model, prompt_cache_mib=0) as whole, lone_head(model) as head:
        for case in cases:
            async with client(whole) as theirs, client(head) as ours:
                found = await difference(case, theirs, ours)
            asked[case.group] += 1
            same[case.group] += found is None
            if found is not None:
                print(f"{case.group}: {found}", file=sys.stderr, flush=True)


async def main(model: Path) -> None:
    same: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    await compare(model, cases(), same, asked)
    with tempfile.TemporaryDirectory() as folder:
        knows_tools = Path(folder) / "with-tools.gguf"
        await write_tool_model(model, knows_tools)
        await compare(knows_tools, cases_with_tools(), same, asked)
    print("| cases | asked | the same |\n|---|---|---|")
    for group, count in asked.items():
        print(f"| {group} | {count} | {same[group]} |")
    print(f"| all | {asked.total()} | {same.total()} |")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
