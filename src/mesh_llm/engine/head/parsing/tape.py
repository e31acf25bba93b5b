"""The text of an answer as it comes, read from its beginning to its end by one reader.

A reader is a generator: it asks for what it needs, and stops (yields) while that has not come. So each format
is written as if its whole text were there, and reads every character once.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
Tell = Callable[[str], None]

_SPACE = re.compile(r"[ \t\r\n]*")


class CutOff(Exception):
    """The text ended within something."""


class Malformed(Exception):
    """The text is not of the format that it began with."""


class Tape:
    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._held: int | None = None
        self._ended = False

    def add(self, text: str) -> None:
        kept = self._at if self._held is None else self._held
        self._text = self._text[kept:] + text
        self._at -= kept
        self._held = None if self._held is None else 0

    def end(self) -> None:
        self._ended = True

    def hold(self) -> None:
        """Keep what is read from here on, for `held`."""
        self._held = self._at

    def held(self) -> str:
        """What has been read since `hold`, which ends."""
        start = self._at if self._held is None else self._held
        self._held = None
        return self._text[start : self._at]

    def ahead(self, count: int) -> Reading[str]:
        """The next `count` characters, not taken; fewer where the text ends."""
        while len(self._text) - self._at < count and not self._ended:
            yield
        return self._text[self._at : self._at + count]

    def accept(self, mark: str) -> Reading[bool]:
        """Take `mark` if it comes next."""
        if not (yield from self.sees(mark)):
            return False
        self._at += len(mark)
        return True

    def sees(self, mark: str) -> Reading[bool]:
        """Whether `mark` comes next."""
        while True:
            if self._text.startswith(mark, self._at):
                return True
            if self._ended or not mark.startswith(self._text[self._at :]):
                return False
            yield

    def expect(self, mark: str) -> Reading[None]:
        """Take `mark`. Raises CutOff where the text ends within it, Malformed where another comes."""
        if not (yield from self.accept(mark)):
            raise CutOff if mark.startswith(self._text[self._at :]) else Malformed

    def take(self, count: int) -> Reading[str]:
        """The next `count` characters. Raises CutOff."""
        text = yield from self.ahead(count)
        self._at += len(text)
        if len(text) < count:
            raise CutOff
        return text

    def space(self) -> Reading[None]:
        yield from self.run(_SPACE)

    def run(self, kind: re.Pattern[str]) -> Reading[str]:
        """All that comes of `kind`, a repeated class of characters."""
        taken = ""
        while True:
            taken += self._match(kind)
            if self._ended or self._at < len(self._text):
                return taken
            yield

    def run_told(self, kind: re.Pattern[str], tell: Tell) -> Reading[None]:
        """All that comes of `kind`, told as it comes."""
        while True:
            text = self._match(kind)
            if text:
                tell(text)
            if self._ended or self._at < len(self._text):
                return
            yield

    def _match(self, kind: re.Pattern[str]) -> str:
        found = kind.match(self._text, self._at)
        text = found.group() if found else ""
        self._at += len(text)
        return text

    def until(self, marks: Sequence[str], tell: Tell) -> Reading[str]:
        """Tells what comes before the first of `marks`, which is not taken; "" where none comes.

        What may be the beginning of a mark is told when it is known not to be one.
        Marks must not begin alike.
        """
        pattern = re.compile("|".join(map(re.escape, marks))) if marks else _NEVER
        while True:
            found = pattern.search(self._text, self._at)
            end = found.start() if found else len(self._text) - (0 if self._ended else self._begun(marks))
            if end > self._at:
                text, self._at = self._text[self._at : end], end
                tell(text)
            if found:
                return found.group()
            if self._ended:
                return ""
            yield

    def _begun(self, marks: Sequence[str]) -> int:
        """Characters at the end that a mark may begin with."""
        longest = max(map(len, marks), default=1) - 1
        tail = self._text[max(self._at, len(self._text) - longest) :] if longest else ""
        starts = (size for size in range(len(tail), 0, -1))
        return next((size for size in starts if _is_begun(tail[-size:], marks)), 0)


_NEVER = re.compile(r"(?!)")


def _is_begun(text: str, marks: Sequence[str]) -> bool:
    return any(mark.startswith(text) and mark != text for mark in marks)
