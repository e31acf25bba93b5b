"""In which order the servers of a model are tried for one request. Pure.

Counterpart: dispatch.py, which tries them. Knows no backends and no network, only what each said of itself.
"""

import hashlib
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mesh_llm.core.offers import ServedOffer


@dataclass(frozen=True, slots=True)
class Place:
    """One server of the model: a backend of this node, or another node."""

    where: str
    """Tells it from the others; the same as long as it lives."""
    here: bool
    served: ServedOffer
    busy: int
    """Requests that it is answering or has waiting."""

    @property
    def slots(self) -> int:
        return max(1, self.served.offer.slots)

    @property
    def approximates(self) -> bool:
        """Whether it lacks experts of the model."""
        cut = self.served.offer.cut
        return cut is not None and cut.is_approximate

    @property
    def has_room(self) -> bool:
        return self.busy < self.slots


def candidates(
    places: Sequence[Place],
    *,
    favourite: str | None = None,
    cooling: Collection[str] = (),
    leaving: bool = False,
    conversation: bytes = b"",
    sticks: bool = False,
) -> list[Place]:
    """The places that are ready, best first: where the conversation was last (`favourite`), then this node,
    both only while they have room; then whoever is expected to have time soonest.

    Who has all of the model comes before who approximates it, whatever conversation or load say. A favourite
    that `sticks` comes first of its kind even while it is busy: others would answer differently.
    Places that are `cooling` after a failure come last, and so do this node's own while it is `leaving`.
    Equals are told apart by the conversation, so that many askers do not all run to the same one.
    """
    usual = _usual_speed(places)

    def rank(place: Place) -> tuple[bool, bool, bool, bool, bool, float, bytes]:
        return (
            leaving and place.here,
            place.where in cooling,
            place.approximates,
            not ((place.has_room or sticks) and place.where == favourite),
            not (place.has_room and place.here),
            (place.busy + 1) / (place.slots * _speed(place, usual)),
            hashlib.blake2b(conversation + place.where.encode(), digest_size=8).digest(),
        )

    return sorted((place for place in places if place.served.ready), key=rank)


def _usual_speed(places: Sequence[Place]) -> float:
    known = [place.served.tokens_per_second for place in places if _is_speed(place.served.tokens_per_second)]
    return statistics.median(known) if known else 1.0


def _speed(place: Place, usual: float) -> float:
    told = place.served.tokens_per_second
    return told if _is_speed(told) else usual


def _is_speed(told: float) -> bool:
    """What others say may be anything; 0 means not measured yet."""
    return 0.001 < told < 1e9
