"""What came of a request, without what differs from answer to answer, and when two such are the same."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

from tests.interaction.surfaces.placements import Clients

Json = dict[str, Any]

VOLATILE = frozenset(
    [
        "id",
        "created",
        "created_at",
        "timings",
        "call_id",
        "item_id",
        "cached_tokens",
        "cache_read_input_tokens",
    ]
)
"""Their presence counts, their values do not: how much of a prompt is cached depends on who asked before."""

LOGARITHMS_DIFFER_MAX = 0.2
"""Attention over other cells of a cache is summed in other groups, which moves logits a little: 0.07 was seen
between two answers of one llama-server, of which the second found its prompt cached."""


@dataclass(frozen=True)
class Refused:
    status: int
    kind: str = "invalid_request_error"
    code: str | None = None
    """None in what is expected: whatever it is."""
    parameter: str | None = None
    message: str = field(default="", compare=False)


@dataclass(frozen=True)
class Answered:
    told: Any


Outcome = Answered | Refused


async def outcome_of(ask: Callable[[Clients], Awaitable[Any]], clients: Clients) -> Outcome:
    try:
        return Answered(normal(await ask(clients)))
    except openai.APIStatusError as error:
        return _refused(error.status_code, error.body)
    except anthropic.APIStatusError as error:
        return _refused(error.status_code, error.body)
    except PlainRefusal as refusal:
        return _refused(refusal.status, refusal.body)


class PlainRefusal(Exception):
    """Of a request that no SDK sends."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


def _refused(status: int, body: Any) -> Refused:
    told = body.get("error", body) if isinstance(body, dict) else {}
    assert isinstance(told, dict) and told.get("message"), f"no error in any dialect's form: {body}"
    return Refused(status, told["type"], told.get("code"), told.get("param"), told["message"])


async def post(clients: Clients, path: str, body: Json) -> Json:
    async with clients.http.post(clients.url + path, json=body) as response:
        answer = json.loads(await response.read())
        if response.status != 200:
            raise PlainRefusal(response.status, answer)
        return answer


async def get_text(clients: Clients, path: str) -> str:
    async with clients.http.get(clients.url + path) as response:
        assert response.status == 200
        return await response.text()


def normal(value: Any) -> Any:
    if isinstance(value, dict):
        found: Json = {name: _of_field(name, part) for name, part in value.items()}
        if "cache_read_input_tokens" in value:  # what was cached is not in the rest of the input
            found["input_tokens"] = value["input_tokens"] + (value["cache_read_input_tokens"] or 0)
        return found
    if isinstance(value, list):
        return [normal(part) for part in value]
    return value


def _of_field(name: str, value: Any) -> Any:
    if name in VOLATILE and value is not None and not (name == "id" and isinstance(value, int)):
        return f"<{name}>"
    if name == "top_logprobs" and isinstance(value, list) and value:
        return [len(value), normal(value[0])]  # of two that are all but alike either may come first
    return normal(value)


def without_counts(answer: Json) -> Json:
    """Of an enforced call: llama-server lets blanks follow the JSON and counts them, a head does not."""
    counted = ("completion_tokens", "output_tokens", "total_tokens")
    usage = {name: "<count>" if name in counted else value for name, value in answer["usage"].items()}
    return answer | {"usage": usage}


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        alone = [f"{where}.{name} is on one side only" for name in one.keys() ^ other.keys()]
        shared = one.keys() & other.keys()
        return alone + [
            told for name in shared for told in differences(one[name], other[name], f"{where}.{name}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [told for place, pair in pairs for told in differences(*pair, f"{where}[{place}]")]
    if isinstance(one, float) and isinstance(other, float) and abs(one - other) <= LOGARITHMS_DIFFER_MAX:
        return []
    return [] if type(one) is type(other) and one == other else [f"{where}: {one!r}, {other!r}"]


def outcomes_differ(one: Outcome, other: Outcome) -> list[str]:
    """How; empty where a client cannot tell them apart."""
    if isinstance(one, Answered) and isinstance(other, Answered):
        return differences(one.told, other.told)
    if isinstance(one, Refused) and isinstance(other, Refused) and fits(_known_of(one, other), other):
        return []
    return [f"{one}, {other}"]


def _known_of(one: Refused, other: Refused) -> Refused:
    """llama-server names neither field nor reason of what it refuses itself; a head does."""
    code = one.code if other.code else None
    parameter = one.parameter if other.parameter else None
    return Refused(one.status, one.kind, code, parameter)


def fits(expected: Refused, got: Outcome) -> bool:
    return (
        isinstance(got, Refused)
        and (got.status, got.kind) == (expected.status, expected.kind)
        and expected.code in (None, got.code)
        and expected.parameter in (None, got.parameter)
    )
