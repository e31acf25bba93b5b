"""Requests at once beside the same requests alone.

All sequences share one KV cache, in llama-server as here: a sequence's cells lie between those of others, and
attention goes over all of them, 256 more at a time, the others masked. So its floats are summed in other
groups than alone, which moves logits a little, and where two tokens are all but equally likely an answer may
go on otherwise. How far they move is measured first; an answer may differ from its answer alone only where
that was enough. (Rows that are computed side by side do not move each other while all fits 256 cells.)
"""

import numpy as np
import pytest

from mesh_llm.engine.llama.context import ContextSettings, rows_of
from tests.engine.head.heads import client, kept, lone_head, together
from tests.engine.llama import computing

pytestmark = pytest.mark.real

PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, in a village by the sea,",
    "Water boils at",
    "Dear Sir,",
    "1, 2, 3,",
    "x =",
    "We",
)
LENGTHS = tuple(18 + 4 * place for place in range(8))
"""With the prompts more than 256 cells."""
LOGITS_MOVE_MAX = 1.0
"""0.59 was seen on x86-64, with Q4_1 weights and a cache of f16."""


class Alone:
    """One answer as a model gives it that does nothing else."""

    def __init__(self, child, prompt: list[int], length: int) -> None:
        child("memory", "clear")
        self.prompt = prompt
        self.tokens: list[int] = []
        self.logits: list[np.ndarray] = []
        rows, position = prompt, 0
        for _ in range(length):
            places = list(range(position, position + len(rows)))
            last = child("decode", [0] * len(rows), places, tokens=rows_of(rows))[-1]
            self.logits.append(last)
            self.tokens.append(int(last.argmax()))
            rows, position = self.tokens[-1:], position + len(rows)

    def margin(self, step: int) -> float:
        """By how much the likeliest token leads."""
        second, first = np.sort(self.logits[step])[-2:]
        return float(first - second)


def largest_move(child, answers: list[Alone]) -> float:
    """Of any logit, when all answers are computed in one batch, word for word as alone."""
    child("memory", "clear")
    for place, answer in enumerate(answers):
        count = len(answer.prompt)
        child("decode", [place] * count, list(range(count)), tokens=rows_of(answer.prompt))
    moves: list[float] = []
    for step in range(max(LENGTHS) - 1):
        going = [place for place, answer in enumerate(answers) if step + 1 < len(answer.tokens)]
        rows = child(
            "decode",
            going,
            [len(answers[place].prompt) + step for place in going],
            tokens=rows_of([answers[place].tokens[step] for place in going]),
        )
        moves += [
            float(np.abs(row - answers[place].logits[step + 1]).max())
            for row, place in zip(rows, going, strict=True)
        ]
    return max(moves)


async def test_mixed_requests_differ_from_themselves_alone_only_where_a_batch_moves_logits(
    smollm2, record_property
):
    with kept(lambda: lone_head(smollm2, sequences=8)) as head, computing.started() as child:
        child("load", smollm2, ContextSettings(context=2048, batch=256, sequences=8, threads=2))
        async with client(head) as ours:
            prompts = [
                (await ours.post("/tokenize", {"content": prompt, "add_special": True}))[1]["tokens"]
                for prompt in PROMPTS
            ]
            answers = [Alone(child, *asked) for asked in zip(prompts, LENGTHS, strict=True)]
            move = largest_move(child, answers)
            record_property("largest difference of a logit", move)
            assert move < LOGITS_MOVE_MAX
            asked = [
                {"prompt": prompt, "temperature": 0, "max_tokens": length, "ignore_eos": True}
                for prompt, length in zip(prompts, LENGTHS, strict=True)
            ]
            alone = [await ours.text(**fields) for fields in asked]
            at_once = await together(*(ours.text(**fields) for fields in asked))
            for answer, *texts in zip(answers, alone, at_once, strict=True):
                for text in texts:  # alone too: cells that others have left there move logits as well
                    step = await first_difference(ours, answer, text)
                    assert step is None or answer.margin(step) <= 2 * move


async def first_difference(ours, answer: Alone, got: str) -> int | None:
    """The step at which a text left that of the context alone; None: it did not."""

    async def agrees(count: int) -> bool:
        said = await ours.post("/detokenize", {"tokens": answer.tokens[:count]})
        return got.startswith(said[1]["content"].rstrip("\ufffd"))

    if await agrees(len(answer.tokens)):
        return None
    step = 0
    while await agrees(step + 1):
        step += 1
    return step


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
async def test_more_answers_than_the_cache_holds_are_all_given_in_turns(model, smollm2, gemma3):
    """Four of 40 tokens where 96 have room: the younger are driven out and computed again."""
    file = smollm2 if model == "smollm2" else gemma3
    with kept(lambda: lone_head(file, context_length=96, batch=32)) as head:
        async with client(head) as ours:
            fields = {"ignore_eos": True, "temperature": 0}
            alone = [await ours.text(prompt, **fields, max_tokens=12) for prompt in PROMPTS[:4]]
            answers = await together(
                *(ours.complete(prompt, **fields, max_tokens=40) for prompt in PROMPTS[:4])
            )
            assert [answer["usage"]["completion_tokens"] for answer in answers] == [40] * 4
            begins = [answer["choices"][0]["text"][:20] for answer in answers]
            assert begins == [text[:20] for text in alone]
            assert (await ours.get("/health"))[0] == 200
