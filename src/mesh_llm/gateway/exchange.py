"""One question to an engine and the way back: what every endpoint that generates hands to the proxy.

The engine answers each of them with a stream of chunks. Menders correct the chunks, a writer turns them into
what the client asked for. Both are pure: they may be fed from a recording.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh_llm.core.errors import MeshError
from mesh_llm.gateway.json_values import Json

Identify = Callable[[str], str]
"""A new id with the given prefix."""


class Mender(Protocol):
    def feed(self, chunk: Json) -> list[Json]: ...

    def finish(self) -> list[Json]:
        """What was held back until the engine had said everything."""
        ...


class Writer(Protocol):
    def feed(self, chunk: Json) -> bytes:
        """Bytes for a streaming client."""
        ...

    def finish(self) -> bytes: ...

    def failure(self, error: MeshError) -> bytes:
        """The last event of a stream that broke off, in the dialect's own form."""
        ...

    def answer(self) -> Json:
        """The whole answer, for a client that did not ask for a stream; after `finish`."""
        ...


@dataclass(slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TemplateAbilities:
    """What the model's chat template can express."""

    tools: bool
    system_role: bool
    enforced_calls: bool = False
    """Whether the engine itself can be trusted with a required call."""


@dataclass(frozen=True, slots=True)
class Exchange:
    path: str
    """Of the engine."""
    body: Json
    writer: Writer
    menders: Sequence[Mender]
    """None where the engine's bytes are already what the client shall see."""
    stream: bool
    """Whether the client wants events."""
    generations: int = 1
    """Answers that the engine computes at once for it: each takes a slot."""
    usage: Usage = field(default_factory=Usage)
    """Filled by a mender as the answer comes in; an untouched answer is read from its last chunk instead."""

    @property
    def untouched(self) -> bool:
        return not self.menders
