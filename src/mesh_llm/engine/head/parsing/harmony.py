"""gpt-oss: messages in channels, each with a header that says whom it is for.

Counterpart: llama.cpp's common/parsers/gpt-oss.cpp. The prompt ends with `<|start|>assistant`.
"""

import re

from mesh_llm.engine.head.parsing.answer_parser import FormatParser
from mesh_llm.engine.head.parsing.json_reading import read_object
from mesh_llm.engine.head.parsing.tape import Reading, Tell
from mesh_llm.engine.head.parsing.telling import Call

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CONSTRAIN = "<|constrain|>"

_CHANNEL = re.compile(r"<\|channel\|>([a-z]+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_ROLE = re.compile(r"[a-z]*")


class HarmonyParser(FormatParser):
    def read(self) -> Reading[None]:
        tape = self.tape
        if self.form.thinking_is_open:
            yield from self._read_body(self._tell_thoughts)
        elif self.form.content_is_open:
            yield from self._read_body(self.telling.content)
        while (yield from tape.ahead(1)):
            if (yield from tape.accept(START)):
                yield from tape.run(_ROLE)
            if (yield from tape.sees(CHANNEL)) or (yield from tape.sees(" to=")):
                yield from self._read_message()
            elif not (yield from tape.accept(END)):
                yield from self.tape.until((START, END, CHANNEL), self.telling.content)

    def _read_message(self) -> Reading[None]:
        self.tape.hold()
        yield from self.tape.take(1)
        pieces: list[str] = []
        if (yield from self.tape.until((MESSAGE, START, END), pieces.append)) != MESSAGE:
            self.telling.content(self.tape.held())
            return
        yield from self.tape.expect(MESSAGE)
        header = self.tape.held()
        recipient = _last(_RECIPIENT, header)
        name = recipient.removeprefix("functions.")
        if recipient.startswith("functions.") and name in self.tools:
            call = self.call()
            yield from call.read(self._read_call(call, name))
        else:
            tell = self._teller(header, recipient)
            yield from self._read_body(tell)
            if tell == self._tell_thoughts and self.form.thoughts_are_content:
                self.telling.content(END)

    def _read_call(self, call: Call, name: str) -> Reading[None]:
        call.begin(name)
        yield from self.tape.space()
        yield from read_object(self.tape, call.arguments)
        yield from self.tape.space()
        yield from self.tape.accept(END)

    def _read_body(self, tell: Tell) -> Reading[None]:
        yield from self.tape.until((END, START), tell)
        yield from self.tape.accept(END)

    def _teller(self, header: str, recipient: str) -> Tell:
        """Of the words of a message. One to a tool that nobody offered is left out, as llama-server does."""
        if recipient not in ("", "assistant") and not self.tools:
            return _forget
        if _last(_CHANNEL, header) != "analysis":
            return self.telling.content
        if self.form.thoughts_are_content:
            self.telling.content(header)
        return self._tell_thoughts

    def _tell_thoughts(self, text: str) -> None:
        tell = self.telling.content if self.form.thoughts_are_content else self.telling.reasoning
        tell(text)


def _last(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.findall(text)
    return found[-1] if found else ""


def _forget(_: str) -> None: ...
