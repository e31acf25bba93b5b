"""Values as Gemma 4 writes them: like JSON, with keys bare and `<|"|>` around texts; told as JSON.

Counterpart: `gemma4_to_json` of llama.cpp's chat-peg-parser.cpp.
"""

import re

from mesh_llm.engine.head.parsing.json_reading import DEPTH_MAX, NAME_MAX, escape, read_value
from mesh_llm.engine.head.parsing.tape import CutOff, Malformed, Reading, Tape, Tell

QUOTE = '<|"|>'

_KEY = re.compile(r"[^:}]*")


def read_dictionary(tape: Tape, tell: Tell, depth: int = 0) -> Reading[None]:
    """Raises Malformed, CutOff."""
    yield from _read_container(tape, tell, depth, "{", "}")


def _read_container(tape: Tape, tell: Tell, depth: int, opening: str, closing: str) -> Reading[None]:
    if depth >= DEPTH_MAX:
        raise Malformed
    yield from tape.expect(opening)
    tell(opening)
    yield from tape.space()
    if (yield from tape.accept(closing)):
        tell(closing)
        return
    while True:
        if opening == "{":
            yield from _read_key(tape, tell)
        yield from _read_value(tape, tell, depth + 1)
        yield from tape.space()
        if (yield from tape.accept(closing)):
            tell(closing)
            return
        yield from tape.expect(",")
        tell(",")
        yield from tape.space()


def _read_key(tape: Tape, tell: Tell) -> Reading[None]:
    key = yield from tape.run(_KEY)
    if not 0 < len(key) <= NAME_MAX:
        raise Malformed
    yield from tape.expect(":")
    tell(f'"{escape(key)}":')
    yield from tape.space()


def _read_value(tape: Tape, tell: Tell, depth: int) -> Reading[None]:
    if (yield from tape.accept(QUOTE)):
        tell('"')
        if not (yield from tape.until((QUOTE,), lambda text: tell(escape(text)))):
            raise CutOff
        yield from tape.expect(QUOTE)
        tell('"')
    elif (yield from tape.sees("{")):
        yield from _read_container(tape, tell, depth, "{", "}")
    elif (yield from tape.sees("[")):
        yield from _read_container(tape, tell, depth, "[", "]")
    elif (yield from tape.sees('"')):
        raise Malformed
    else:
        yield from read_value(tape, tell)
