"""JSON on a tape, told as it comes, checked as far as it has come."""

import json
import re

from mesh_llm.engine.head.parsing.tape import CutOff, Malformed, Reading, Tape, Tell

DEPTH_MAX = 64
"""Of values within values; what is deeper is refused as malformed."""

NAME_MAX = 1024
"""Characters of a key or an id that is read as a whole."""

_SPACE = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'[^"\\\x00-\x1f]*')
_IN_NUMBER = re.compile(r"[-+.0-9eE]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"t": "true", "f": "false", "n": "null"}
_ESCAPES = frozenset('"\\/bfnrt')


def read_value(tape: Tape, tell: Tell, depth: int = 0) -> Reading[None]:
    """Raises Malformed, CutOff."""
    first = yield from tape.ahead(1)
    if not first:
        raise CutOff
    if first in "{[":
        yield from _read_container(tape, tell, depth)
    elif first == '"':
        yield from read_string(tape, tell)
    elif first in _WORDS:
        yield from tape.expect(_WORDS[first])
        tell(_WORDS[first])
    else:
        yield from _read_number(tape, tell)


def read_object(tape: Tape, tell: Tell) -> Reading[None]:
    """Raises Malformed where another value comes, CutOff."""
    if not (yield from tape.sees("{")):
        raise CutOff if not (yield from tape.ahead(1)) else Malformed
    yield from read_value(tape, tell)


def _read_container(tape: Tape, tell: Tell, depth: int) -> Reading[None]:
    if depth >= DEPTH_MAX:
        raise Malformed
    opening = yield from tape.take(1)
    closing = "}" if opening == "{" else "]"
    tell(opening)
    yield from tape.run_told(_SPACE, tell)
    if (yield from tape.accept(closing)):
        tell(closing)
        return
    while True:
        if opening == "{":
            yield from read_string(tape, tell)
            yield from _read_mark(tape, ":", tell)
        yield from read_value(tape, tell, depth + 1)
        yield from tape.run_told(_SPACE, tell)
        if (yield from tape.accept(closing)):
            tell(closing)
            return
        yield from _read_mark(tape, ",", tell)


def _read_mark(tape: Tape, mark: str, tell: Tell) -> Reading[None]:
    """With the white space around it."""
    yield from tape.run_told(_SPACE, tell)
    yield from tape.expect(mark)
    tell(mark)
    yield from tape.run_told(_SPACE, tell)


def read_string(tape: Tape, tell: Tell) -> Reading[None]:
    """Raises Malformed, CutOff."""
    yield from tape.expect('"')
    tell('"')
    while True:
        yield from tape.run_told(_IN_STRING, tell)
        character = yield from tape.take(1)
        if character == "\\":
            character += yield from _read_escape(tape)
        elif character != '"':
            raise Malformed
        tell(character)
        if character == '"':
            return


def _read_escape(tape: Tape) -> Reading[str]:
    kind = yield from tape.take(1)
    if kind != "u":
        if kind not in _ESCAPES:
            raise Malformed
        return kind
    digits = yield from tape.take(4)
    if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
        raise Malformed
    return kind + digits


def _read_number(tape: Tape, tell: Tell) -> Reading[None]:
    text = yield from tape.run(_IN_NUMBER)
    if not _NUMBER.fullmatch(text):
        raise CutOff if text and not (yield from tape.ahead(1)) else Malformed
    tell(text)


def read_text(tape: Tape) -> Reading[str]:
    """The text that a JSON string stands for. Raises Malformed, CutOff."""
    pieces: list[str] = []
    yield from read_string(tape, pieces.append)
    text = "".join(pieces)
    if len(text) > NAME_MAX:
        raise Malformed
    return json.loads(text)


def escape(text: str) -> str:
    """As it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
