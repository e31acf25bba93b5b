"""An engine process's parent as the child sees it. Counterpart: `child.py`.

The parent sends one line of settings; then its silence is the lifeline (`runtime/lifeline.py`). It hears
lines on standard output, `ready {...}` among them; reasons for failing are on standard error, and only there.
"""

import json
import os
from typing import Any

UNUSABLE = 3
"""Exit status where the engine would not start."""


def first_line() -> bytes:
    """Byte by byte: what follows belongs to the engine and to the lifeline."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


class Parent:
    """Make one before a library may turn standard output into something else."""

    def __init__(self) -> None:
        self._output = os.dup(1)
        self._percent = -1

    def tell(self, word: str, fields: dict[str, Any]) -> None:
        os.write(self._output, f"{word} {json.dumps(fields)}\n".encode())

    def tell_loaded(self, share: float) -> None:
        """Each percent once; llama.cpp calls for each tensor."""
        percent = int(share * 100)
        if percent > self._percent:
            self._percent = percent
            self.tell("loading", {"fraction": percent / 100})
