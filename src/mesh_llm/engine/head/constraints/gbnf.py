"""Whether a GBNF grammar may be given to llama.cpp, which reads it by recursion, without limits, and tells
nobody what is wrong with it. Pure.

Counterpart: `llama_grammar_parser` of llama-grammar.cpp, rule by rule. Nothing here says what may follow in
an answer: that is llama.cpp's grammar sampler (`engine/llama/grammar.py`).
"""

from dataclasses import dataclass, field
from typing import NoReturn

from mesh_llm.engine.head.constraints.beginnings import Rules, Sequence, check_beginnings, refuse, shown

CHARACTERS_MAX = 65_536
NESTING_MAX = 50
"""Of parentheses: llama.cpp reads each by recursion."""
ELEMENTS_MAX = 100_000
"""Of all rules, with repetitions written out as llama.cpp does."""
REPETITIONS_MAX = 2000
"""MAX_REPETITION_THRESHOLD of llama-grammar.cpp."""

ROOT = "root"
BLANKS = " \t"
ESCAPES = {"x": 2, "u": 4, "U": 8, "t": 0, "r": 0, "n": 0, "\\": 0, '"': 0, "[": 0, "]": 0, "-": 0}
"""With the hexadecimal digits that they take."""

HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
DIGITS = frozenset("0123456789")
LETTERS = DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-")
DIGITS_MAX = 9


def check_gbnf(text: str) -> None:
    """Raises RequestRefused with the reason."""
    if len(text) > CHARACTERS_MAX:
        refuse(f"it has {len(text)} characters, more than {CHARACTERS_MAX}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        refuse("it has a character that no text has")
    rules = _Reader(text).read()
    if ROOT not in rules:
        refuse(f"it has no rule `{ROOT}`, with which an answer begins")
    for name, alternatives in rules.items():
        for missing in (item for items in alternatives for item in items if item and item not in rules):
            refuse(f"`{shown(name)}` names the rule `{missing}`, which it does not have")
    check_beginnings(rules)


@dataclass(slots=True)
class _Reader:
    text: str
    at: int = 0
    rules: Rules = field(default_factory=dict[str, list[Sequence]])
    elements: int = 0

    def read(self) -> Rules:
        self._skip(newlines=True)
        while self.at < len(self.text):
            name = self._name()
            self._skip(newlines=False)
            self._expect("::=")
            self._skip(newlines=True)
            self.rules[name] = self._alternatives(name, 0)
            if self._next() not in ("", "\r", "\n"):
                self._fail("the end of the rule was expected")
            self._skip(newlines=True)
        return self.rules

    def _alternatives(self, name: str, nesting: int) -> list[Sequence]:
        if nesting > NESTING_MAX:
            self._fail(f"parentheses are nested more than {NESTING_MAX} times")
        alternatives = [self._sequence(name, nesting)]
        while self._next() == "|":
            self.at += 1
            self._skip(newlines=True)
            alternatives.append(self._sequence(name, nesting))
        return alternatives

    def _sequence(self, name: str, nesting: int) -> Sequence:
        items: Sequence = []
        start = 0
        """Of what a repetition repeats: the last thing that was read."""
        while True:
            if self._next() in tuple("*+?{"):
                self._repeat(items, start, name)
            else:
                read = self._thing(name, nesting)
                if read is None:
                    return items
                start = len(items)
                items += read
                self._count(len(read))
            self._skip(newlines=nesting > 0)

    def _thing(self, name: str, nesting: int) -> Sequence | None:
        """An element each for what llama.cpp keeps one for; None where none begins."""
        character = self._next()
        if character == '"':
            return self._characters('"', ranges=False)
        if character == "[":
            return self._characters("]", ranges=True)
        if character and character in "<!":
            return self._token()
        if character == ".":
            self.at += 1
            return [None]
        if character == "(":
            return self._group(name, nesting)
        return [self._name()] if _is_of_name(character) else None

    def _characters(self, end: str, *, ranges: bool) -> Sequence:
        self.at += 1
        if ranges and self._next() == "^":
            self.at += 1
        begun = self.at
        items: Sequence = []
        while self._next() != end:
            if self.at >= len(self.text):
                self.at = begun
                self._fail(f"no `{end}` follows")
            self._character()
            items.append(None)
            if ranges and self._next() == "-" and self.text[self.at + 1 : self.at + 2] != end:
                self.at += 1
                self._character()
                items.append(None)
        self.at += 1
        return items

    def _character(self) -> None:
        escape = self._next() == "\\"
        self.at += 1
        if not escape:
            return
        digits = ESCAPES.get(self._next())
        if digits is None:
            self._fail('a `\\` is followed by none of xuUtrn\\"[]-')
        number = self.text[self.at + 1 : self.at + 1 + digits]
        if len(number) < digits or any(digit not in HEXADECIMAL for digit in number):
            self._fail(f"{digits} hexadecimal digits were expected")
        self.at += 1 + digits

    def _token(self) -> Sequence:
        self.at += self._next() == "!"
        self._expect("<")
        end = self.text.find(">", self.at)
        if end < 0:
            self._fail("no `>` follows")
        inside = self.text[self.at : end]
        if inside.startswith("[") and not _is_number(inside[1:-1] if inside.endswith("]") else ""):
            self._fail("the number of a token was expected, as in <[1]>")
        self.at = end + 1
        return [None]

    def _group(self, name: str, nesting: int) -> Sequence:
        self.at += 1
        self._skip(newlines=True)
        part = self._add_rule(name, self._alternatives(name, nesting + 1))
        self._expect(")")
        return [part]

    def _repeat(self, items: Sequence, start: int, name: str) -> None:
        if start == len(items):
            self._fail("there is nothing to repeat")
        least, most = self._times()
        repeated = items[start:]
        self._count(len(repeated) * least)
        items[start:] = repeated * least
        if most is None:
            again = self._add_rule(name, [])
            self.rules[again] = [[*repeated, again], []]
            items.append(again)
            return
        more: Sequence = []
        for _ in range(most - least):
            self._count(len(repeated) + 3)
            more = [self._add_rule(name, [[*repeated, *more], []])]
        items += more

    def _times(self) -> tuple[int, int | None]:
        """(at least, at most); None: for ever."""
        sign = self._next()
        self.at += 1
        if sign != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        end = self.text.find("}", self.at)
        least, comma, most = self.text[self.at : max(self.at, end)].partition(",")
        least, most = least.strip(BLANKS), most.strip(BLANKS)
        if end < 0 or not _is_number(least) or (most and not _is_number(most)):
            self._fail("a repetition as {1,2} was expected")
        self.at = end + 1
        if int(least) > REPETITIONS_MAX:
            self._fail(f"something is repeated more than {REPETITIONS_MAX} times")
        if not comma:
            return int(least), int(least)
        if not most or int(most) > REPETITIONS_MAX:
            return int(least), None
        if int(most) < int(least):
            self._fail("a repetition ends before it begins")
        return int(least), int(most)

    def _add_rule(self, name: str, alternatives: list[Sequence]) -> str:
        made = f"{name}*{len(self.rules)}"
        self.rules[made] = alternatives
        return made

    def _count(self, elements: int) -> None:
        self.elements += elements
        if self.elements > ELEMENTS_MAX:
            self._fail(f"written out it has more than {ELEMENTS_MAX} elements")

    def _name(self) -> str:
        begun = self.at
        while _is_of_name(self._next()):
            self.at += 1
        if self.at == begun:
            self._fail("the name of a rule was expected")
        return self.text[begun : self.at]

    def _skip(self, *, newlines: bool) -> None:
        while True:
            character = self._next()
            if character == "#":
                while self._next() not in ("", "\r", "\n"):
                    self.at += 1
            elif character and (character in BLANKS or (newlines and character in "\r\n")):
                self.at += 1
            else:
                return

    def _next(self) -> str:
        """Empty at the end."""
        return self.text[self.at : self.at + 1]

    def _expect(self, sign: str) -> None:
        if not self.text.startswith(sign, self.at):
            self._fail(f"`{sign}` was expected")
        self.at += len(sign)

    def _fail(self, reason: str) -> NoReturn:
        line = self.text.count("\n", 0, self.at) + 1
        found = self.text[self.at : self.at + 20].partition("\n")[0]
        refuse(f"in line {line}, before `{found}`, {reason}" if found else f"in line {line} {reason}")


def _is_of_name(character: str) -> bool:
    return character != "" and (character in LETTERS)


def _is_number(text: str) -> bool:
    return 0 < len(text) <= DIGITS_MAX and all(digit in DIGITS for digit in text)
