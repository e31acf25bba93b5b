"""What travels in datagrams between members. `wire.py` turns them into bytes; `membership.py` answers them.

Who sent a message is known from its connection, so that no message names its sender.
"""

from dataclasses import dataclass

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.news import News

DIGEST_BYTES = 8
"""Two views that differ agree by chance once in 2^64."""


@dataclass(frozen=True, slots=True)
class _FirstHand:
    sequence: int
    incarnation: int
    """The sender's own; this and the next are first-hand news."""
    version: int
    """Of the sender's own advert."""
    digest: bytes
    """Of the sender's view: who lives, and which of their adverts it holds."""
    busy: int
    """Requests that the sender is answering or has waiting."""
    news: tuple[News, ...] = ()


@dataclass(frozen=True, slots=True)
class Ping(_FirstHand):
    """Do you live? Answered with an Ack of the same sequence."""


@dataclass(frozen=True, slots=True)
class Ack(_FirstHand):
    """I live."""


@dataclass(frozen=True, slots=True)
class PingRequest:
    """I cannot reach the target: ask it for me. Answered with PingReport if it answers, else not at all."""

    sequence: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class PingReport:
    """The target of your PingRequest answered me."""

    sequence: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class Gossip:
    """News alone; not answered."""

    news: tuple[News, ...]


Message = Ping | Ack | PingRequest | PingReport | Gossip
