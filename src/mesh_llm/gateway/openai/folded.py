"""A stream's chunks folded into one answer, as clients get it that did not ask for a stream."""

from collections.abc import Callable
from typing import Protocol

from mesh_llm.core.errors import MeshError
from mesh_llm.gateway.json_values import Json, objects_at


class Choice(Protocol):
    """One of an answer's choices as it grows."""

    def feed(self, choice: Json) -> None: ...

    def as_json(self, index: int) -> Json: ...


class Folded:
    """`gateway.exchange.Writer` of whole answers."""

    def __init__(self, model: str, kind: str, begin: Callable[[], Choice]) -> None:
        """`kind` names the object; `begin` makes a choice of which nothing has been heard."""
        self._model = model
        self._kind = kind
        self._begin = begin
        self._choices: dict[int, Choice] = {}
        self._frame: Json = {}

    def feed(self, chunk: Json) -> bytes:
        for choice in objects_at(chunk, "choices"):
            self._choices.setdefault(int(choice.get("index") or 0), self._begin()).feed(choice)
        self._frame |= {name: value for name, value in chunk.items() if name != "choices"}
        return b""

    def finish(self) -> bytes:
        return b""

    def failure(self, error: MeshError) -> bytes:
        raise AssertionError("a whole answer fails before its first byte")

    def answer(self) -> Json:
        choices = [self._choices[index].as_json(index) for index in sorted(self._choices)]
        return self._frame | {"object": self._kind, "model": self._model, "choices": choices}
