"""Values of GGUF metadata: what is kept, what is only counted, and how each kind lies in the file.

Counterpart of the key-value part of llama.cpp's gguf.cpp. What a key means is known in `facts` alone.
"""

import struct

from mesh_llm.core.quantities import MIB
from mesh_llm.models.gguf.contents import Scalar, Skipped, Value
from mesh_llm.models.gguf.cursor import Cursor

ARRAY_ENTRIES_KEPT_MAX = 4096
"""Arrays with one number a layer have at most 512 (`LLAMA_MAX_LAYERS`); vocabularies have far more."""

STRINGS_KEPT_MAX = 256
"""Tags, languages and labels of a classifier are kept, vocabularies are not."""

TEXT_BYTES_MAX = MIB
"""One string. Chat templates are up to about 50 kB; a whole `tokenizer.json` is only counted."""

KEPT_BYTES_MAX = 16 * MIB
"""All values together; what comes later is only counted."""

STRINGS_WALKED_MAX = 4_000_000
"""A second of work. The largest header known has about 700,000 (262,144 tokens and 446,189 merges)."""

_ENTRY_BYTES = 32
"""What one decoded number costs here."""

_STRING = 8
_ARRAY = 9


_NUMBERS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""By GGUF's number of the kind; 8 is a string, 9 an array."""

KIND_U32 = 4


class ValueReader:
    """Decodes one value after the other from a cursor, within limits that hold for the whole header."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._kept_bytes_left = KEPT_BYTES_MAX
        self._strings_left = STRINGS_WALKED_MAX

    def read(self, kind: int, key: str) -> Value:
        what = f"the value of `{key}`"
        if kind == _STRING:
            return self._text(what)
        if kind == _ARRAY:
            return self._array(what)
        return self._number(kind, what)

    def _number(self, kind: int, what: str) -> Scalar:
        form = self._form(kind, what)
        return form.unpack(self._cursor.take(form.size, what))[0]

    def _form(self, kind: int, what: str) -> struct.Struct:
        form = _NUMBERS.get(kind)
        if form is None:
            self._cursor.damaged(f"{what} has the unknown kind {kind}")
        return form

    def _text(self, what: str) -> str | Skipped:
        length = self._cursor.u64(what)
        self._cursor.require(length, what)
        if length > TEXT_BYTES_MAX or not self._may_keep(length):
            self._cursor.skip(length, what)
            return Skipped("text", length)
        return self._cursor.take(length, what).decode("utf-8", errors="replace")

    def _array(self, what: str) -> tuple[Scalar, ...] | Skipped:
        kind = self._cursor.u32(what)
        count = self._cursor.u64(what)
        if kind == _STRING:
            return self._strings(count, what)
        if kind == _ARRAY:
            self._cursor.damaged(f"{what} is an array of arrays, which no model has")
        form = self._form(kind, what)
        self._cursor.require(count * form.size, what)
        if count > ARRAY_ENTRIES_KEPT_MAX or not self._may_keep(count * _ENTRY_BYTES):
            self._cursor.skip(count * form.size, what)
            return Skipped("number", count)
        packed = self._cursor.take(count * form.size, what)
        return tuple(number for (number,) in form.iter_unpack(packed))

    def _strings(self, count: int, what: str) -> tuple[Scalar, ...] | Skipped:
        self._cursor.require(8 * count, what)
        self._strings_left -= count
        if self._strings_left < 0:
            self._cursor.damaged(f"it lists more than {STRINGS_WALKED_MAX:,} strings")
        if count > STRINGS_KEPT_MAX:
            self._cursor.skip_strings(count, what)
            return Skipped("string", count)
        texts = [self._text(what) for _ in range(count)]
        kept = tuple(text for text in texts if isinstance(text, str))
        return kept if len(kept) == count else Skipped("string", count)

    def _may_keep(self, count: int) -> bool:
        if count > self._kept_bytes_left:
            return False
        self._kept_bytes_left -= count
        return True
