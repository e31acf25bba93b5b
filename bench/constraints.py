"""How fast a head decodes JSON of a schema, against free text. Prints a table.

    python -m bench.constraints MODEL.gguf

Both decode the same number of tokens after the same prompt, in turns, so that a busy minute hits both.
The head's own timings are taken: compiling a schema comes before them. Wants a quiet machine.
"""

import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.engine.head.heads import Client, client, lone_head, together

ROUNDS = 9
TOKENS = 96
STREAMS = (1, 4)
PROMPT = "A list of towns, each with its country, its inhabitants and what it is known for, as JSON:\n"
TOWN = {
    "type": "object",
    "properties": {
        "town": {"type": "string", "maxLength": 30},
        "country": {"type": "string", "maxLength": 30},
        "inhabitants": {"type": "integer", "minimum": 1, "maximum": 40_000_000},
        "is_capital": {"type": "boolean"},
        "known_for": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 3},
    },
    "required": ["town", "country", "inhabitants", "is_capital", "known_for"],
    "additionalProperties": False,
}
FREE: dict[str, Any] = {"ignore_eos": True}
KINDS: dict[str, dict[str, Any]] = {
    "json_schema": {"json_schema": {"type": "array", "items": TOWN, "minItems": TOKENS}},
    "grammar": {"grammar": 'root ::= "[" town+\ntown ::= "\\"" [A-Za-z ,.]{3,40} "\\", "', **FREE},
}
"""None ends before the tokens do."""


async def tokens_per_second(ours: Client, streams: int, fields: dict[str, Any]) -> float:
    """Of each stream, on average."""
    asked = {"max_tokens": TOKENS, "cache_prompt": False, "temperature": 0.7, **fields}
    answers = await together(*(ours.complete(PROMPT, seed=seed, **asked) for seed in range(streams)))
    counts = [answer["usage"]["completion_tokens"] for answer in answers]
    if counts != [TOKENS] * streams:
        raise SystemExit(f"an answer ended early: {counts} tokens instead of {TOKENS} each")
    return statistics.mean(answer["timings"]["predicted_per_second"] for answer in answers)


async def main(model: Path) -> None:
    print("| streams | form | free, tokens/s | in form, tokens/s | ratio, median | lowest | highest |")
    print("|---|---|---|---|---|---|---|", flush=True)
    async with lone_head(model) as head, client(head) as ours:
        for streams in STREAMS:
            for name, fields in KINDS.items():
                await tokens_per_second(ours, streams, fields)  # compiled, and everything is warm
                pairs = [
                    (
                        await tokens_per_second(ours, streams, FREE),
                        await tokens_per_second(ours, streams, fields),
                    )
                    for _ in range(ROUNDS)
                ]
                print(row(streams, name, pairs), flush=True)


def row(streams: int, name: str, pairs: list[tuple[float, float]]) -> str:
    free, masked = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [masked / free for free, masked in pairs]
    told = f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f}"
    return f"| {streams} | {name} | {free:.1f} | {masked:.1f} | {told} |"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
