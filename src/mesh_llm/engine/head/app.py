"""The head's HTTP: as much of llama-server's surface as the gateway asks for.

Counterparts: `pipeline.py` answers, `gateway/upstream.py` asks. Whoever hangs up is computed for no longer.
"""

import asyncio
import hmac
import random
from collections.abc import Sequence
from datetime import datetime
from itertools import count

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh_llm.core.errors import EngineFailed, MeshError, RequestRefused, Unavailable
from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.engine.head import chunks
from mesh_llm.engine.head.chunks import AnswerForm, ContextExceeded, Json, Route
from mesh_llm.engine.head.generation import BrokenOff, Ended, News, Question, Timings, Told
from mesh_llm.engine.head.messages import Message, read_messages
from mesh_llm.engine.head.pipeline import Pipeline
from mesh_llm.engine.head.requests import (
    SEEDS,
    Body,
    Detokenize,
    Fields,
    Tokenize,
    biases_in,
    read_as,
    read_fields,
    read_object,
    sampling_of,
)
from mesh_llm.engine.head.ring_state import RingDown, to_fields
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.head.template import ChatTemplate
from mesh_llm.engine.head.unserved import refuse_several_prompts, refuse_tool_messages, refuse_unserved
from mesh_llm.engine.llama.tokenizer import Tokenizer
from mesh_llm.runtime.clock import Clock

EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
OPEN_PATHS = ("/health", "/v1/health")
RETRY_AFTER_S = 2


class HeadApp:
    def __init__(
        self,
        settings: HeadSettings,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        pipeline: Pipeline,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._template = template
        self._pipeline = pipeline
        self._clock = clock
        self._chance = chance
        self._requests = count(1)
        self._listeners: dict[int, asyncio.Queue[News]] = {}

    def deliver(self, news: Sequence[News]) -> None:
        """In the loop's thread."""
        for item in news:
            listener = self._listeners.get(item.request)
            if listener is not None:
                listener.put_nowait(item)

    def application(self) -> web.Application:
        application = web.Application(
            client_max_size=REQUEST_BODY_BYTES_MAX, middlewares=[self._answer_errors, self._ask_for_key]
        )
        application.router.add_get("/health", self._health)
        application.router.add_get("/v1/health", self._health)
        application.router.add_get("/props", self._props)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/tokenize", self._tokenize)
        application.router.add_post("/detokenize", self._detokenize)
        application.router.add_post("/apply-template", self._apply_template)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/completions", self._complete)
        return application

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except MeshError as error:
            told = error
        except web.HTTPException as error:
            told = RequestRefused(f"{request.path}: {error.reason}", http_status=error.status)
        return _json(chunks.dump({"error": chunks.error_json(told)}), told.http_status)

    @web.middleware
    async def _ask_for_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        is_right = hmac.compare_digest(given.encode(), self._settings.api_key.encode())
        if not is_right and request.path not in OPEN_PATHS:
            raise RequestRefused("Invalid API Key", http_status=401)
        return await handler(request)

    def _check_ring(self) -> None:
        state = self._pipeline.ring
        if isinstance(state, RingDown):
            raise Unavailable(
                f"the model's stages are not all connected: {state.reason}", retry_after_s=RETRY_AFTER_S
            )

    async def _health(self, _request: web.Request) -> web.Response:
        self._check_ring()
        return _json(chunks.dump({"status": "ok"}))

    async def _props(self, _request: web.Request) -> web.Response:
        forms = self._template.forms
        special = self._tokenizer
        props: Json = {
            "default_generation_settings": {"n_ctx": self._settings.context_length},
            "total_slots": self._settings.sequences,
            "model_alias": self._settings.name,
            "chat_template": self._template.source,
            "chat_template_caps": {
                "supports_string_content": forms.text,
                "supports_typed_content": forms.parts,
                "supports_system_role": forms.system_role,
                "supports_tools": False,  # see unserved.py
                "supports_tool_calls": False,
                "supports_parallel_tool_calls": False,
            },
            "chat_template_is_fallback": self._template.is_fallback,
            "bos_token": special.special_text(special.beginning),
            "eos_token": special.special_text(special.end),
            "modalities": {"vision": False, "audio": False},
            "ring": to_fields(self._pipeline.ring),
        }
        if self._template.broken is not None:
            props["chat_template_error"] = self._template.broken
        return _json(chunks.dump(props))

    async def _models(self, _request: web.Request) -> web.Response:
        meta = {"n_ctx": self._settings.context_length, "n_vocab": self._tokenizer.size}
        model = {"id": self._settings.name, "object": "model", "owned_by": "mesh-llm", "meta": meta}
        return _json(chunks.dump({"object": "list", "data": [model]}))

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked = read_as(read_object(await request.read()), Tokenize)
        tokens = self._tokenizer.tokenize(
            asked.content, add_special=asked.add_special, parse_special=asked.parse_special
        )
        if not asked.with_pieces:
            return _json(chunks.dump({"tokens": tokens}))
        pieces = [{"id": token, "piece": self._tokenizer.detokenize([token])} for token in tokens]
        return _json(chunks.dump({"tokens": pieces}))

    async def _detokenize(self, request: web.Request) -> web.Response:
        asked = read_as(read_object(await request.read()), Detokenize)
        self._check_tokens(asked.tokens, "tokens")
        return _json(chunks.dump({"content": self._tokenizer.detokenize(asked.tokens)}))

    async def _apply_template(self, request: web.Request) -> web.Response:
        body = read_object(await request.read())
        return _json(chunks.dump({"prompt": self._chat_prompt(body, read_fields(body))}))

    def _chat_prompt(self, body: Body, fields: Fields) -> str:
        if "messages" not in body:
            raise RequestRefused("'messages' is required", parameter="messages")
        refuse_tool_messages(body["messages"])
        messages: list[Message] = read_messages(body["messages"])
        now = datetime.fromtimestamp(self._clock.epoch())
        return self._template.render(
            messages,
            now,
            add_generation_prompt=fields.add_generation_prompt is not False,
            extra=fields.chat_template_kwargs,
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body, fields = self._read(await request.read())
        return await self._generate(request, "chat", self._cut(self._chat_prompt(body, fields)), fields)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body, fields = self._read(await request.read())
        if "prompt" not in body:
            raise RequestRefused('"prompt" is required', parameter="prompt")
        return await self._generate(request, "text", self._prompt_tokens(body["prompt"]), fields)

    def _read(self, raw: bytes) -> tuple[Body, Fields]:
        self._check_ring()
        body = read_object(raw)
        refuse_unserved(body)
        return body, read_fields(body)

    def _cut(self, prompt: str) -> list[int]:
        return self._tokenizer.tokenize(prompt, add_special=True, parse_special=True)

    def _prompt_tokens(self, prompt: object) -> list[int]:
        prompt = refuse_several_prompts(prompt)
        if isinstance(prompt, str):
            return self._cut(prompt)
        tokens = read_as({"tokens": prompt}, Detokenize).tokens
        self._check_tokens(tokens, "prompt")
        return tokens

    def _check_tokens(self, tokens: list[int], parameter: str) -> None:
        size = self._tokenizer.size
        if any(not 0 <= token < size for token in tokens):
            raise RequestRefused(
                f"`{parameter}` has a token that does not exist: there are {size}.",
                code="invalid_value",
                parameter=parameter,
            )

    async def _generate(
        self, request: web.Request, route: Route, tokens: list[int], fields: Fields
    ) -> web.StreamResponse:
        context = self._settings.context_length
        if not tokens:
            raise RequestRefused("The prompt is empty. Say something to go on from.", parameter="prompt")
        if len(tokens) >= context:
            raise ContextExceeded(len(tokens), context)
        tokens_max = fields.tokens_max if fields.tokens_max is not None else context
        prefix = "chatcmpl-" if route == "chat" else "cmpl-"
        identity = f"{prefix}{self._chance.getrandbits(128):032x}"
        form = AnswerForm(route, self._settings.name, identity, int(self._clock.epoch()))
        question = Question(
            request=next(self._requests),
            tokens=tuple(tokens),
            tokens_max=max(1, tokens_max),
            sampling=sampling_of(fields, self._chance.randrange(SEEDS), self._biases(fields)),
            stops=fields.stops,
        )
        listener: asyncio.Queue[News] = asyncio.Queue()
        self._listeners[question.request] = listener
        try:
            if tokens_max == 0:
                listener.put_nowait(Ended(question.request, "length", Timings(len(tokens), 0, 0.0, 0.0)))
            else:
                self._pipeline.ask(question)
            answer = self._stream if fields.stream else self._whole
            return await answer(request, listener, form, fields)
        finally:
            del self._listeners[question.request]
            self._pipeline.cancel(question.request)  # of one that has ended it is nothing

    def _biases(self, fields: Fields) -> tuple[tuple[int, float], ...]:
        biases: list[tuple[int, float]] = []
        for key, bias in biases_in(fields):
            if isinstance(key, int):
                biases.append((key, bias))
            else:
                named = self._tokenizer.tokenize(key, add_special=False, parse_special=False)
                biases += [(token, bias) for token in named]
        if fields.ignore_eos:
            biases += [(token, float("-inf")) for token in self._tokenizer.ending()]
        return tuple(biases)

    async def _stream(
        self, request: web.Request, listener: asyncio.Queue[News], form: AnswerForm, fields: Fields
    ) -> web.StreamResponse:
        """Nothing is sent before the first words: until then somebody else may answer."""
        news = await listener.get()
        if isinstance(news, BrokenOff):
            raise Unavailable(news.reason, retry_after_s=RETRY_AFTER_S)
        response = web.StreamResponse(headers=EVENTS)
        await response.prepare(request)
        await response.write(form.begin())
        while True:
            await response.write(_events(news, form, fields))
            if not isinstance(news, Told):
                return response
            news = await listener.get()

    async def _whole(
        self, _request: web.Request, listener: asyncio.Queue[News], form: AnswerForm, _fields: Fields
    ) -> web.StreamResponse:
        texts: list[str] = []
        while True:
            match await listener.get():
                case Told(_, text):
                    texts.append(text)
                case Ended() as ended:
                    return _json(form.whole("".join(texts), ended))
                case BrokenOff(_, reason):
                    raise Unavailable(reason, retry_after_s=RETRY_AFTER_S)


def _events(news: News, form: AnswerForm, fields: Fields) -> bytes:
    match news:
        case Told(_, text):
            return form.text(text)
        case Ended():
            return form.end(news, include_usage=fields.includes_usage)
        case BrokenOff(_, reason):
            lost = EngineFailed(f"the answer was broken off: {reason}")
            return chunks.event({"error": chunks.error_json(lost)})


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
