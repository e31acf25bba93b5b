"""What an answer grows by, once its text is understood. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    index: int
    """Of the call within its answer, from 0."""
    id: str
    """As the model wrote it, else a drawn one."""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    index: int
    text: str
    """A piece of the arguments' JSON."""


Delta = Content | Reasoning | CallBegin | CallArguments
