"""Answers under way in the pipeline: what each has said, its sampler, its time. Used by one thread."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

from mesh_llm.engine.head.answer_text import AnswerText
from mesh_llm.engine.head.generation import BrokenOff, Ended, News, Question, Reason, Scored, Timings, Told
from mesh_llm.engine.head.last_layers import LastLayers
from mesh_llm.engine.head.steps import Finished, Sampled
from mesh_llm.engine.llama.constraint import ConstraintBroken


@dataclass(slots=True)
class Answer:
    question: Question
    text: AnswerText
    asked_at: float
    began_at: float = 0.0
    tokens: int = 0
    is_late: bool = False
    """Whether it ends because its time is over."""
    broken: str = ""
    """Why it cannot go on."""


@dataclass(frozen=True, slots=True)
class Unspelled:
    answer: Answer
    token: int
    scored: Scored | None
    is_end: bool


class Answers:
    def __init__(self, layers: LastLayers) -> None:
        self._layers = layers
        self._ends = frozenset(layers.tokenizer.ending())
        self._answers: dict[int, Answer] = {}
        self._news: list[News] = []
        self._unspelled: list[Unspelled] = []
        """Tokens whose text can wait until the next step has left."""

    def begin(self, question: Question, now: float) -> None:
        """`now` in seconds, of any clock."""
        text = AnswerText(question.limits.stops)
        self._answers[question.request] = Answer(question, text, asked_at=now)

    def sample(self, row: int, request: int) -> Sampled:
        """Its next token, from a row of the step that has just been computed."""
        answer = self._answers[request]
        question = answer.question
        if not answer.tokens:
            question.sampler.remember(question.tokens)
        try:
            token = self._layers.sample(question.sampler, row)
        except ConstraintBroken as error:
            answer.broken = str(error)
            return Sampled(0, ends=True)
        return Sampled(token, self._take(answer, token, self._scored(question, token, row)))

    def _scored(self, question: Question, token: int, row: int) -> Scored | None:
        if not question.rivals:
            return None
        if question.rivals_as_sampled:
            return Scored(token, question.sampler.kept(token, question.rivals))
        return Scored(token, self._layers.probabilities(row, token, question.rivals))

    def _take(self, answer: Answer, token: int, scored: Scored | None) -> bool:
        """Whether the answer ends with it."""
        answer.tokens += 1
        is_end = token in self._ends
        if scored is not None or not is_end or token in answer.question.shown:
            self._unspelled.append(Unspelled(answer, token, scored, is_end))
        if answer.question.limits.need_text:
            self._spell()
        return is_end or answer.text.stopped or answer.is_late

    def _spell(self) -> None:
        for unspelled in self._unspelled:
            self._spell_one(unspelled)
        self._unspelled.clear()

    def _spell_one(self, unspelled: Unspelled) -> None:
        """What is told with an ending token, or comes amidst a character, is as llama-server's
        `process_token` has it."""
        answer, token = unspelled.answer, unspelled.token
        question = answer.question
        tokenizer = self._layers.tokenizer
        text = answer.text.add(
            tokenizer.special_text(token).encode() if token in question.shown else tokenizer.piece(token)
        )
        if unspelled.is_end:
            text += answer.text.finish()
        scored = None if answer.text.is_amidst_character else unspelled.scored
        if text or scored is not None:
            self._news.append(Told(question.request, text, scored))
        limit = question.limits.milliseconds
        if limit and "\n" in text and answer.began_at:
            answer.is_late = 1e3 * (perf_counter() - answer.began_at) > limit

    def mark_first_tokens(self, now: float) -> None:
        """Of answers that have begun since the last call."""
        for answer in self._answers.values():
            if answer.tokens and not answer.began_at:
                answer.began_at = now

    def finish(self, finished: Finished, now: float) -> None:
        self._spell()
        answer = self._remove(finished.request)
        if answer.broken:
            self._news.append(BrokenOff(finished.request, answer.broken, is_refusal=True))
            return
        text = answer.text.finish()
        if text:
            self._news.append(Told(finished.request, text))
        timings = Timings(
            prompt_tokens=len(answer.question.tokens),
            answer_tokens=answer.tokens,
            prompt_milliseconds=1e3 * (answer.began_at - answer.asked_at),
            answer_milliseconds=1e3 * (now - answer.began_at),
            cached_tokens=finished.cached,
        )
        reason: Reason = "length" if answer.is_late else finished.reason
        self._news.append(Ended(finished.request, reason, timings, answer.text.stop))

    def fail(self, request: int, reason: str) -> None:
        self._spell()
        self._remove(request)
        self._news.append(BrokenOff(request, reason))

    def forget(self, request: int) -> None:
        """Nobody listens any more."""
        if request in self._answers:
            self._remove(request)

    def take_news(self) -> list[News]:
        self._spell()
        news, self._news = self._news, []
        return news

    def __iter__(self) -> Iterator[int]:
        return iter(self._answers)

    def _remove(self, request: int) -> Answer:
        answer = self._answers.pop(request)
        answer.question.sampler.close()
        return answer
