"""Same conversation, same server: there the prompt so far is still in the KV cache. Pure."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

from mesh_llm.gateway.json_values import Json, as_list, as_object, text

CONVERSATIONS_MAX = 4096
"""A few hundred kB; the least recently continued is forgotten first."""

FORGOTTEN_AFTER_S = 20 * 60.0
"""An engine with little memory has dropped the prompt by then."""

SESSION_FORGOTTEN_AFTER_S = 24 * 3600.0
"""Where others would answer differently: who comes back to a conversation comes within a day."""

TEXT_BYTES_READ = 4096
"""Of each text: enough to tell conversations apart, and an image costs nothing."""

ENTRIES_READ = 64
"""Of each list or object."""

DEPTH_READ = 6

SESSION_FIELDS = ("session_id", "prompt_cache_key", "user", "safety_identifier")
"""By which clients say what belongs together, the narrower first: OpenAI's, but for the first, which is ours
and other routers'."""

METADATA, METADATA_USER = "metadata", "user_id"
"""Anthropic's: an object with a field of that name."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def conversation_key(model: str, body: Json) -> bytes | None:
    """Of what stays the same while a conversation grows: model, tools, system prompt, first user message.

    In every dialect that generates. None where there is no user message yet.
    """
    first = _first_message(body)
    if first is None:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for part in (
        model,
        body.get("tools"),
        body.get("system"),
        body.get("instructions"),
        _system(body),
        first,
    ):
        _feed(digest, part, DEPTH_READ)
    return digest.digest()


def session_key(model: str, body: Json) -> bytes | None:
    """What has to be answered by one server because others would answer differently: what the client calls a
    session, else its user, else the conversation."""
    for name, said in _sessions(body):
        if isinstance(said, str) and said:
            digest = hashlib.blake2b(digest_size=16)
            for part in (model, name, said):
                _feed(digest, part, DEPTH_READ)
            return digest.digest()
    return conversation_key(model, body)


def check_sessions(body: Json) -> None:
    """That what names a session is a string, where it is there. Raises RequestRefused, as OpenAI does."""
    for name in SESSION_FIELDS:
        text(body, name)
    text(as_object(body.get(METADATA)) or {}, METADATA_USER, f"{METADATA}.")


def _sessions(body: Json) -> Iterator[tuple[str, Any]]:
    yield from ((name, body.get(name)) for name in SESSION_FIELDS)
    yield METADATA, (as_object(body.get(METADATA)) or {}).get(METADATA_USER)


def _turns(body: Json) -> list[Any]:
    """Of chat completions and Messages, or of Responses."""
    return as_list(body.get("messages")) or as_list(body.get("input")) or []


def _first_message(body: Json) -> Any:
    for turn in _turns(body):
        found = as_object(turn)
        if found is not None and found.get("role") == "user":
            return found.get("content")
    said = body.get("prompt") or body.get("input")
    return said if isinstance(said, str) else None


def _system(body: Json) -> list[Any]:
    roles = ("system", "developer")
    return [
        found.get("content")
        for turn in _turns(body)[:ENTRIES_READ]
        if (found := as_object(turn)) is not None and found.get("role") in roles
    ]


def _feed(digest: _Hash, value: Any, depth: int) -> None:
    """Feeds the beginning of everything in `value`, each piece with its kind and length."""
    entries = as_list(value)
    fields = as_object(value)
    if isinstance(value, str):
        start = value[:TEXT_BYTES_READ].encode(errors="surrogatepass")
        digest.update(b"s%d:" % len(value) + start)
    elif entries is not None:
        digest.update(b"l%d:" % len(entries))
        for entry in entries[:ENTRIES_READ] if depth else ():
            _feed(digest, entry, depth - 1)
    elif fields is not None:
        digest.update(b"o%d:" % len(fields))
        for name in sorted(fields)[:ENTRIES_READ] if depth else ():
            _feed(digest, name, 0)
            _feed(digest, fields[name], depth - 1)
    else:
        digest.update(b"v" + repr(value)[:TEXT_BYTES_READ].encode())


class Affinity:
    """Which server answered each conversation last."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def favourite(self, conversation: bytes | None, now: float, *, sticks: bool = False) -> str | None:
        """`sticks`: it matters who answers, whatever is still in a cache."""
        if conversation is None:
            return None
        where, seen = self._last.get(conversation, ("", 0.0))
        bound = SESSION_FORGOTTEN_AFTER_S if sticks else FORGOTTEN_AFTER_S
        return where if where and now - seen <= bound else None

    def remember(self, conversation: bytes | None, where: str, now: float) -> None:
        if conversation is None:
            return
        self._last[conversation] = (where, now)
        self._last.move_to_end(conversation)
        while len(self._last) > CONVERSATIONS_MAX:
            self._last.popitem(last=False)
