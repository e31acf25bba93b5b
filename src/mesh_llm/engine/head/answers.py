"""Answers under way in the pipeline: what each has said, its sampler, its time. Used by one thread."""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh_llm.engine.head.answer_text import AnswerText
from mesh_llm.engine.head.generation import BrokenOff, Ended, News, Question, Timings, Told
from mesh_llm.engine.head.last_layers import LastLayers
from mesh_llm.engine.head.scheduler import Finished, Sampled
from mesh_llm.engine.llama.samplers import Sampler


@dataclass(slots=True)
class Answer:
    question: Question
    text: AnswerText
    sampler: Sampler | None
    """None until its first token: most who wait need none yet."""
    asked_at: float
    began_at: float = 0.0
    tokens: int = 0


class Answers:
    def __init__(self, layers: LastLayers) -> None:
        self._layers = layers
        self._ends = frozenset(layers.tokenizer.ending())
        self._answers: dict[int, Answer] = {}
        self._news: list[News] = []
        self._untold: list[tuple[Answer, int]] = []
        """Tokens whose text can wait until the next step has left."""

    def begin(self, question: Question, now: float) -> None:
        """`now` in seconds, of any clock."""
        text = AnswerText(question.stops)
        self._answers[question.request] = Answer(question, text, None, asked_at=now)

    def sample(self, row: int, request: int) -> Sampled:
        """Its next token, from a row of the step that has just been computed."""
        answer = self._answers[request]
        if answer.sampler is None:
            question = answer.question
            answer.sampler = self._layers.sampler(question.sampling, question.tokens)
        token = self._layers.sample(answer.sampler, row)
        return Sampled(token, self._take(answer, token))

    def _take(self, answer: Answer, token: int) -> bool:
        """Whether the answer ends with it."""
        answer.tokens += 1
        if token in self._ends:
            return True
        self._untold.append((answer, token))
        if answer.question.stops:
            self._spell()
        return answer.text.stopped

    def _spell(self) -> None:
        for answer, token in self._untold:
            text = answer.text.add(self._layers.tokenizer.piece(token))
            if text:
                self._news.append(Told(answer.question.request, text))
        self._untold.clear()

    def mark_first_tokens(self, now: float) -> None:
        """Of answers that have begun since the last call."""
        for answer in self._answers.values():
            if answer.tokens and not answer.began_at:
                answer.began_at = now

    def finish(self, finished: Finished, now: float) -> None:
        self._spell()
        answer = self._remove(finished.request)
        text = answer.text.finish()
        if text:
            self._news.append(Told(finished.request, text))
        timings = Timings(
            prompt_tokens=len(answer.question.tokens),
            answer_tokens=answer.tokens,
            prompt_milliseconds=1e3 * (answer.began_at - answer.asked_at),
            answer_milliseconds=1e3 * (now - answer.began_at),
        )
        self._news.append(Ended(finished.request, finished.reason, timings))

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
        if answer.sampler is not None:
            answer.sampler.close()
        return answer
