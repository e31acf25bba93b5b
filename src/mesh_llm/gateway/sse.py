"""Server-sent events, both ways: an incremental reader and a writer. Pure; bytes in, events out."""

from dataclasses import dataclass
from typing import Any

from mesh_llm.core.errors import EngineFailed
from mesh_llm.gateway.json_values import dump

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""One event; the largest real ones are a token with its 20 likeliest rivals: kilobytes."""

HELD_BYTES_MAX = 1024 * 1024
"""Of an event that passes unread; a longer one goes out in pieces."""

DONE = b"[DONE]"
KEEP_ALIVE = b":\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    data: bytes
    """Lines joined by newlines; empty for a comment, which engines send to keep a silent line open."""


class EventReader:
    """Cuts a byte stream into events, however it was chopped up."""

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._pending = b""
        self._data: list[bytes] = []
        self._size = 0
        self._event_bytes_max = event_bytes_max

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in `chunk`. Raises EngineFailed for one beyond all bounds."""
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        self._size += sum(map(len, lines))
        events: list[Event] = []
        for line in lines:
            event = self._take(line.rstrip(b"\r"))
            if event is not None:
                events.append(event)
        if self._size + len(self._pending) > self._event_bytes_max:
            raise EngineFailed("The engine sent an event without end. Restart the model if this comes back.")
        return events

    def _take(self, line: bytes) -> Event | None:
        if not line:
            data, self._data, self._size = b"\n".join(self._data), [], 0
            return Event(data) if data else None
        if line.startswith(b":"):
            return Event(b"")
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        return None  # `event:`, `id:` and `retry:` lines say nothing that the data does not


class WholeEvents:
    """Holds back the beginning of an event until its end is there: a stream shall break off between two.

    No event is parsed, and chunks that end with an event pass as they are.
    """

    def __init__(self, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._held = b""
        self._held_bytes_max = held_bytes_max

    def feed(self, chunk: bytes) -> bytes:
        if not self._held and chunk.endswith(b"\n\n"):
            return chunk
        held = self._held + chunk
        end = max(held.rfind(b"\n\n") + 2, held.rfind(b"\n\r\n") + 3)
        if end <= 2:  # neither was found
            end = len(held) if len(held) > self._held_bytes_max else 0
        self._held = held[end:]
        return held[:end]

    def finish(self) -> bytes:
        """What has no end."""
        held, self._held = self._held, b""
        return held


def encode(data: Any, event: str | None = None) -> bytes:
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + (data if isinstance(data, bytes) else dump(data)) + b"\n\n"
