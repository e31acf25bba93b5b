"""The text of an answer as it grows: whole characters only, and nothing past a stop string. Pure.

Counterpart: `process_token` and `find_stopping_strings` of llama-server's server-context.cpp. What may be the
beginning of a stop string, or of a character, is held back until it is known.
"""

import codecs
from collections.abc import Sequence


class AnswerText:
    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stop = ""
        """The stop string that has ended it."""

    @property
    def stopped(self) -> bool:
        return bool(self.stop)

    @property
    def is_amidst_character(self) -> bool:
        """Whether bytes are held back that are no character yet."""
        return bool(self._decoder.getstate()[0])

    def add(self, piece: bytes) -> str:
        """What may be told now that `piece` has come."""
        self._held += self._decoder.decode(piece)
        found = [(position, stop) for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if found:
            end, self.stop = min(found, key=lambda place: place[0])
            told, self._held = self._held[:end], ""
            return told
        return self._tell(len(self._held) - self._tail_held())

    def finish(self) -> str:
        """What was held back and belongs to the answer after all; half a character is left out."""
        return self._tell(len(self._held))

    def _tell(self, end: int) -> str:
        told, self._held = self._held[:end], self._held[end:]
        return told

    def _tail_held(self) -> int:
        """Characters at the end that a stop string may begin with."""
        return max((_overlap(self._held, stop) for stop in self._stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
