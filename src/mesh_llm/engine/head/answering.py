"""Questions into the pipeline, and what it tells of them out as HTTP: in a stream, or whole.

Counterparts: `handle_completions_impl` of llama-server's server-context.cpp; `app.py` reads requests. Whoever
hangs up is computed for no longer.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from aiohttp import web

from mesh_llm.core.errors import EngineFailed, MeshError, RequestRefused, Unavailable
from mesh_llm.engine.head import chunks
from mesh_llm.engine.head.choices import Choice, Verbatim, together
from mesh_llm.engine.head.chunks import AnswerForm, ContextExceeded, Route
from mesh_llm.engine.head.constraints.compiling import Compiler
from mesh_llm.engine.head.constraints.wishes import Wish
from mesh_llm.engine.head.counters import Counters
from mesh_llm.engine.head.generation import BrokenOff, Ended, Limits, News, Question, Timings, Told
from mesh_llm.engine.head.last_layers import LastLayers
from mesh_llm.engine.head.parsing.answer_parser import AnswerParser
from mesh_llm.engine.head.parsing.deltas import Delta
from mesh_llm.engine.head.pipeline import Pipeline
from mesh_llm.engine.head.requests import SEEDS, Fields, biases_in, sampling_of
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.llama.sampling import NEVER, Sampling
from mesh_llm.runtime.clock import Clock

EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
RETRY_AFTER_S = 2
GENERATIONS_MAX = 256
"""Prompts times choices of one request."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, understood."""

    route: Route
    prompts: list[list[int]]
    fields: Fields
    wish: Wish | None = None
    parser: Callable[[], AnswerParser] = Verbatim
    """A new one for each choice."""
    shown: frozenset[int] = frozenset()
    """Control tokens whose text belongs to the answer."""
    begun: Sequence[Delta] = ()
    """What a whole answer says before the first new word; streams leave it out, as in llama-server."""


@dataclass(slots=True)
class Listener:
    choices: dict[int, Choice]
    """By the number of their request in the pipeline."""
    news: asyncio.Queue[News]


class Answering:
    def __init__(
        self,
        settings: HeadSettings,
        layers: LastLayers,
        pipeline: Pipeline,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._layers = layers
        self._tokenizer = layers.tokenizer
        self._pipeline = pipeline
        self._clock = clock
        self._chance = chance
        self._compiler = Compiler(layers.tokenizer)
        self._counters = Counters()
        self._requests = count(1)
        self._listeners: dict[int, Listener] = {}

    def exposition(self) -> str:
        """What has been done so far, for Prometheus."""
        return self._counters.exposition(len(self._listeners), self._settings.sequences)

    def deliver(self, news: Sequence[News]) -> None:
        """In the loop's thread."""
        for item in news:
            if isinstance(item, Ended):
                self._counters.count(item.timings)
            listener = self._listeners.get(item.request)
            if listener is not None:
                listener.news.put_nowait(item)

    async def answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        """Raises RequestRefused, Unavailable."""
        self._check(asked)
        listener = self._listener(asked)
        try:
            await self._ask(asked, listener)
            if asked.fields.stream:
                return await self._stream(request, listener, include_usage=asked.fields.includes_usage)
            return await self._whole(listener)
        finally:
            for number in listener.choices:
                del self._listeners[number]
                self._pipeline.cancel(number)  # of one that has ended it is nothing

    def _check(self, asked: Asked) -> None:
        choices, context = asked.fields.choices, self._settings.context_length
        if not 1 <= choices <= self._settings.sequences:
            raise RequestRefused(
                f"`n` must be 1 to {self._settings.sequences}, for so many are answered at once.",
                code="invalid_value",
                parameter="n",
            )
        if choices * len(asked.prompts) > GENERATIONS_MAX:
            raise RequestRefused(
                f"More than {GENERATIONS_MAX} answers in one request are too many. Ask in several.",
                code="invalid_value",
                parameter="prompt",
            )
        for tokens in asked.prompts:
            if not tokens:
                raise RequestRefused("The prompt is empty. Say something to go on from.", parameter="prompt")
            if len(tokens) >= context:
                raise ContextExceeded(len(tokens), context)

    def _listener(self, asked: Asked) -> Listener:
        prefix = "chatcmpl-" if asked.route == "chat" else "cmpl-"
        identity = f"{prefix}{self._chance.getrandbits(128):032x}"
        form = AnswerForm(
            asked.route,
            self._settings.name,
            identity,
            int(self._clock.epoch()),
            prompt_told=len(asked.prompts[0]) if asked.fields.return_progress else None,
            is_verbose=bool(asked.fields.verbose),
        )
        listener = Listener({}, asyncio.Queue())
        for index in range(len(asked.prompts) * asked.fields.choices):
            number = next(self._requests)
            listener.choices[number] = Choice(
                index,
                index // asked.fields.choices,
                form,
                asked.parser(),
                self._tokenizer.piece,
                tells_as_sampled=bool(asked.fields.post_sampling_probs),
            )
            self._listeners[number] = listener
            if not asked.fields.stream:
                listener.choices[number].message.add_all(asked.begun)
        return listener

    async def _ask(self, asked: Asked, listener: Listener) -> None:
        fields = asked.fields
        tokens_max = fields.tokens_max if fields.tokens_max is not None else self._settings.context_length
        if tokens_max == 0:
            for number, choice in listener.choices.items():
                prompt = len(asked.prompts[choice.prompt])
                listener.news.put_nowait(Ended(number, "length", Timings(prompt, 0, 0.0, 0.0)))
            return
        questions = await asyncio.to_thread(self._questions, asked, listener, tokens_max)
        for question in questions:
            self._pipeline.ask(question)

    def _questions(self, asked: Asked, listener: Listener, tokens_max: int) -> list[Question]:
        """In a thread of its own: to make samplers and constraints may take seconds. Raises RequestRefused,
        Unavailable."""
        fields = asked.fields
        rivals = fields.rivals(is_chat=asked.route == "chat")
        seed = self._chance.randrange(SEEDS)
        sampling = sampling_of(fields, seed, self._biases(fields), tells_probabilities=rivals > 0)
        limits = Limits(fields.stops, max(0, fields.t_max_predict_ms or 0))
        return [
            Question(
                request=number,
                tokens=tuple(asked.prompts[choice.prompt]),
                tokens_max=tokens_max,
                sampler=self._layers.sampler(
                    _of_choice(sampling, choice.index % fields.choices),
                    self._compiler.compile(asked.wish) if asked.wish is not None else None,
                ),
                limits=limits,
                shown=asked.shown,
                rivals=rivals,
                rivals_as_sampled=bool(fields.post_sampling_probs),
                may_reuse=fields.cache_prompt is not False,
            )
            for number, choice in listener.choices.items()
        ]

    def _biases(self, fields: Fields) -> tuple[tuple[int, float], ...]:
        biases: list[tuple[int, float]] = []
        for key, bias in biases_in(fields):
            if isinstance(key, int):
                biases.append((key, bias))
            else:
                named = self._tokenizer.tokenize(key, add_special=False, parse_special=False)
                biases += [(token, bias) for token in named]
        if fields.ignore_eos:
            biases += [(token, NEVER) for token in self._tokenizer.ending()]
        return tuple(biases)

    async def _stream(
        self, request: web.Request, listener: Listener, *, include_usage: bool
    ) -> web.StreamResponse:
        """Nothing is sent before the first words: until then somebody else may answer."""
        news = await listener.news.get()
        if isinstance(news, BrokenOff):
            raise _fault(news)
        response = web.StreamResponse(headers=EVENTS)
        await response.prepare(request)
        left = len(listener.choices)
        while True:
            choice = listener.choices[news.request]
            match news:
                case Told():
                    await response.write(choice.chunks(news))
                case Ended():
                    left -= 1
                    last = choice.last_chunks(news, include_usage=include_usage)
                    await response.write(last if left else last + chunks.DONE)
                case BrokenOff(_, reason):
                    lost = EngineFailed(f"the answer was broken off: {reason}")
                    await response.write(chunks.event({"error": chunks.error_json(lost)}))
                    left = 0
            if not left:
                return response
            news = await listener.news.get()

    async def _whole(self, listener: Listener) -> web.Response:
        left = len(listener.choices)
        while left:
            news = await listener.news.get()
            choice = listener.choices[news.request]
            match news:
                case Told():
                    choice.add(news)
                case Ended():
                    left -= 1
                    choice.finish(news, self._tokens_of(news.stop))
                case BrokenOff():
                    raise _fault(news)
        choices = list(listener.choices.values())
        body = choices[0].form.whole([choice.as_json() for choice in choices], together(choices))
        return web.Response(body=body, content_type="application/json")

    def _tokens_of(self, stop: str) -> int:
        return len(self._tokenizer.tokenize(stop, add_special=False, parse_special=False)) if stop else 0


def _of_choice(sampling: Sampling, place: int) -> Sampling:
    """Each choice draws otherwise: `add_child` of server-task.h."""
    return replace(sampling, seed=(sampling.seed + place) % SEEDS)


def _fault(news: BrokenOff) -> MeshError:
    if news.is_refusal:
        return RequestRefused(news.reason)
    return Unavailable(news.reason, retry_after_s=RETRY_AFTER_S)
