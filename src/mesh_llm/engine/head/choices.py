"""The choices of one answer as they come together: each reads its own text, and knows how it ended. Pure.

Counterpart: `task_result_state` and `process_token` of llama-server; `chunks.py` gives them their form.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mesh_llm.engine.head.chunks import AnswerForm, Json, Message, score_json
from mesh_llm.engine.head.generation import Ended, Timings, Told
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser
from mesh_llm.engine.head.parsing.deltas import Content, Delta

Piece = Callable[[int], bytes]
"""The bytes that a token adds to an answer."""


class Verbatim:
    """An AnswerParser for who reads nothing into a text."""

    def feed(self, text: str) -> list[Delta]:
        return [Content(text)] if text else []

    def finish(self) -> list[Delta]:
        return []


@dataclass(slots=True)
class Choice:
    index: int
    prompt: int
    """Which of the prompts it answers, from 0."""
    form: AnswerForm
    parser: AnswerParser
    piece: Piece
    tells_as_sampled: bool = False
    message: Message = field(default_factory=Message)
    scores: list[Json] = field(default_factory=list[Json])
    has_begun: bool = False
    ended: Ended | None = None

    def chunks(self, told: Told) -> bytes:
        """Of a stream."""
        deltas, scores = self._take(told)
        out = b"" if self.has_begun else self.form.begin(self.index)
        self.has_begun = True
        if self.form.route == "text":
            return out + self.form.text(self.index, told.text, scores)
        return out + self._told(deltas, scores)

    def last_chunks(self, ended: Ended, *, include_usage: bool) -> bytes:
        out = b"" if self.has_begun else self.form.begin(self.index)
        deltas = self._finish(ended)
        out += b"" if self.form.route == "text" else self._told(deltas, [])
        return out + self.form.end(
            self.index, self.reason, ended.timings, include_usage=include_usage, stop=ended.stop
        )

    def add(self, told: Told) -> None:
        """Of a whole answer."""
        _, scores = self._take(told)
        self.scores += scores

    def finish(self, ended: Ended, tokens_of_stop: int) -> None:
        """As llama-server does, the scores of as many tokens as the stop string has are left out."""
        self._finish(ended)
        self.scores = self.scores[: max(0, len(self.scores) - tokens_of_stop)]

    @property
    def reason(self) -> str:
        if self.ended is None:
            raise ValueError("it has not ended")
        return "tool_calls" if self.ended.reason == "stop" and self.message.has_calls else self.ended.reason

    def as_json(self) -> Json:
        return self.form.choice(self.index, self.message, self.reason, self.scores)

    def _take(self, told: Told) -> tuple[list[Delta], list[Json]]:
        scores = (
            []
            if told.scored is None
            else [score_json(told.text, told.scored, self.piece, as_sampled=self.tells_as_sampled)]
        )
        deltas = self.parser.feed(told.text)
        self.message.add_all(deltas)
        return deltas, scores

    def _finish(self, ended: Ended) -> list[Delta]:
        self.ended = ended
        deltas = self.parser.finish()
        self.message.add_all(deltas)
        return deltas

    def _told(self, deltas: list[Delta], scores: list[Json]) -> bytes:
        """Scores go with the last; where a token tells nothing they are lost, as in llama-server."""
        last = len(deltas) - 1
        return b"".join(
            self.form.delta(self.index, delta, scores if place == last else [])
            for place, delta in enumerate(deltas)
        )


def together(choices: list[Choice]) -> Timings:
    """Of several that were asked for at once; each prompt counts once."""
    first = {choice.prompt: choice for choice in reversed(choices)}
    all_timings = [choice.ended.timings for choice in choices if choice.ended is not None]
    prompts = [choice.ended.timings for choice in first.values() if choice.ended is not None]
    return Timings(
        prompt_tokens=sum(timings.prompt_tokens for timings in prompts),
        answer_tokens=sum(timings.answer_tokens for timings in all_timings),
        prompt_milliseconds=max(timings.prompt_milliseconds for timings in all_timings),
        answer_milliseconds=max(timings.answer_milliseconds for timings in all_timings),
        cached_tokens=sum(timings.cached_tokens for timings in prompts),
    )
