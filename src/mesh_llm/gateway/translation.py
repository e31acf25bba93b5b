"""The engine's bytes into the client's: untouched where nothing needs mending, else event by event.

Pure. Raises EngineFailed where the engine's own stream says that it went wrong.
"""

import json
import re
from typing import Any

from mesh_llm.core.errors import EngineFailed, MeshError
from mesh_llm.gateway.errors import read_stream_error
from mesh_llm.gateway.exchange import Exchange, Usage
from mesh_llm.gateway.json_values import Json, as_object
from mesh_llm.gateway.sse import DONE, KEEP_ALIVE, Event, EventReader, WholeEvents

TAIL_BYTES = 4096
"""Holds the last chunk, `usage` and `timings` included (1.2 KB), and what ends a stream."""

ERROR_START = b'data: {"error":'
COUNTED = (
    rb"prompt_tokens|completion_tokens|cached_tokens|cache_n|prompt_n|predicted_n|input_tokens|output_tokens"
)
COUNTS = re.compile(rb'"(' + COUNTED + rb')":\s*(\d+)')


class Untouched:
    """Passes whole events on as they are and remembers only their end.

    `told` is an error that went through with them: the client knows it already.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._events = WholeEvents()
        self._begun = False
        self.tail = b""
        self.told: MeshError | None = None

    @property
    def ended(self) -> bool:
        """Whether the engine said all it had to say."""
        return self.tail.rstrip().endswith(DONE) or ERROR_START in self.tail

    def feed(self, chunk: bytes) -> bytes:
        """Raises MeshError for an error that is the first thing said."""
        events = self._events.feed(chunk)
        if not self._begun and events:
            self._begun = True
            if events.startswith(ERROR_START):
                raise _told_error(events[len(b"data: ") :])
        self.tail = (self.tail + chunk)[-TAIL_BYTES:]
        return events

    def finish(self) -> bytes:
        start = self.tail.rfind(ERROR_START)
        if start >= 0:
            self.told = _told_error(self.tail[start + len(b"data: ") :])
        read_counts(self.tail, self._usage)
        return self._events.finish()


class Mended:
    """Reads every event; menders and the writer of the exchange say what goes out."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._events = EventReader()
        self.ended = False
        self.told: MeshError | None = None

    def feed(self, chunk: bytes) -> bytes:
        return b"".join(self._translate(event) for event in self._events.feed(chunk))

    def _translate(self, event: Event) -> bytes:
        if not event.data:
            return KEEP_ALIVE
        if event.data == DONE:
            self.ended = True
            return b""
        chunk = _parse(event.data)
        if chunk is None:
            return b""  # llama-server begins some streams with `data: null`
        if as_object(chunk.get("error")) is not None:
            raise read_stream_error(chunk["error"])
        return self._write([chunk], stage=0)

    def _write(self, chunks: list[Json], stage: int) -> bytes:
        for mender in self._exchange.menders[stage:]:
            chunks = [mended for chunk in chunks for mended in mender.feed(chunk)]
        return b"".join(self._exchange.writer.feed(chunk) for chunk in chunks)

    def finish(self) -> bytes:
        held = [
            self._write(mender.finish(), stage + 1) for stage, mender in enumerate(self._exchange.menders)
        ]
        return b"".join(held) + self._exchange.writer.finish()


def read_counts(end: bytes, usage: Usage) -> None:
    """Takes token counts from the bytes of a last chunk, in any dialect; its `timings` serve where it has no
    `usage`."""
    counts = {name.decode(): int(value) for name, value in COUNTS.findall(end)}
    prompt = counts.get("input_tokens", counts.get("cache_n", 0) + counts.get("prompt_n", 0))
    usage.prompt_tokens = counts.get("prompt_tokens", prompt)
    answer = counts.get("output_tokens", counts.get("predicted_n", 0))
    usage.completion_tokens = counts.get("completion_tokens", answer)
    usage.cached_tokens = counts.get("cached_tokens", counts.get("cache_n", 0))


def _parse(data: bytes) -> Json | None:
    try:
        value: Any = json.loads(data)
    except ValueError as error:
        raise EngineFailed(f"The engine sent what is not JSON: {error}") from error
    return as_object(value)


def _told_error(data: bytes) -> MeshError:
    chunk = _parse(data.split(b"\n", 1)[0]) or {}
    return read_stream_error(as_object(chunk.get("error")) or {})
