"""How the rules of a GBNF grammar begin: whether llama.cpp finds the end of following them. Pure.

Counterpart: `llama_grammar_detect_left_recursion` and `llama_grammar_advance_stack` of llama-grammar.cpp. The
first knows of no rule that it is empty because another one is; the second then goes on for ever.
"""

from typing import NoReturn

from mesh_llm.core.errors import RequestRefused

BEGINNINGS_MAX = 1000
"""Ways in which a rule may begin, each of which llama.cpp follows for itself, and by recursion."""

Item = str | None
"""A rule by its name, or something that is read."""
Sequence = list[Item]
Rules = dict[str, list[Sequence]]
"""Each with its alternatives. Those that were made of a part of another are named after it, and a `*`."""


def refuse(reason: str) -> NoReturn:
    raise RequestRefused(f"`grammar` cannot be used: {reason}.", code="invalid_value", parameter="grammar")


def shown(name: str) -> str:
    return name.partition("*")[0]


def check_beginnings(rules: Rules) -> None:
    """All rules that are named are there. Raises RequestRefused for one that comes back to itself before
    anything is read, and for too many ways to begin."""
    empty = _may_be_empty(rules)
    firsts = {name: _first_rules(alternatives, empty) for name, alternatives in rules.items()}
    ways: dict[str, int] = {}
    for name in rules:
        _count_ways(name, firsts, ways)


def _may_be_empty(rules: Rules) -> set[str]:
    left: dict[tuple[str, int], int] = {}
    """Of alternatives that are made of rules only: how many are not known to be empty."""
    users: dict[str, list[tuple[str, int]]] = {name: [] for name in rules}
    for name, alternatives in rules.items():
        for index, items in enumerate(alternatives):
            named = [item for item in items if item is not None]
            if len(named) == len(items):
                left[name, index] = len(items)
                for item in named:
                    users[item].append((name, index))
    todo = [name for (name, _), count in left.items() if count == 0]
    empty: set[str] = set()
    while todo:
        rule = todo.pop()
        if rule not in empty:
            empty.add(rule)
            for user in users[rule]:
                left[user] -= 1
                if left[user] == 0:
                    todo.append(user[0])
    return empty


def _first_rules(alternatives: list[Sequence], empty: set[str]) -> list[str]:
    """Those with which the alternatives may begin, as often as they do."""
    firsts: list[str] = []
    for items in alternatives:
        for item in items:
            if item is None:
                break
            firsts.append(item)
            if item not in empty:
                break
    return firsts


def _count_ways(name: str, firsts: dict[str, list[str]], ways: dict[str, int]) -> None:
    """Depth first, without recursion: 0 marks a rule whose beginnings are being looked at."""
    todo = [name]
    while todo:
        rule = todo[-1]
        if rule not in ways:
            ways[rule] = 0
            if any(ways.get(first) == 0 for first in firsts[rule]):
                refuse(f"`{shown(rule)}` begins with itself (left recursion). Let it end with itself")
            todo += [first for first in firsts[rule] if first not in ways]
            continue
        todo.pop()
        ways[rule] = ways[rule] or 1 + sum(ways[first] for first in firsts[rule])
        if ways[rule] > BEGINNINGS_MAX:
            refuse(f"`{shown(rule)}` can begin in more than {BEGINNINGS_MAX} ways")
