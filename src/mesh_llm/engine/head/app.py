"""The head's HTTP: as much of llama-server's surface as the gateway asks for.

Counterparts: `gateway/upstream.py` asks; `answering.py` has the pipeline answer.
"""

import hmac
from collections.abc import Sequence
from datetime import datetime

from aiohttp import web
from aiohttp.typedefs import Handler

from mesh_llm.core.errors import MeshError, RequestRefused, Unavailable
from mesh_llm.core.limits import REQUEST_BODY_BYTES_MAX
from mesh_llm.engine.head import chunks, counters
from mesh_llm.engine.head.answering import RETRY_AFTER_S, Answering, Asked
from mesh_llm.engine.head.chat import ChatReader
from mesh_llm.engine.head.chunks import Json, Route
from mesh_llm.engine.head.constraints.wishes import read_wish
from mesh_llm.engine.head.generation import News
from mesh_llm.engine.head.pipeline import Pipeline
from mesh_llm.engine.head.prompts import checked, read_prompts
from mesh_llm.engine.head.requests import (
    Body,
    Detokenize,
    Fields,
    Tokenize,
    read_as,
    read_fields,
    read_object,
)
from mesh_llm.engine.head.ring_state import RingDown, to_fields
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.head.unserved import refuse_unserved
from mesh_llm.engine.llama.tokenizer import Tokenizer
from mesh_llm.runtime.clock import Clock

OPEN_PATHS = ("/health", "/v1/health")


class HeadApp:
    def __init__(
        self,
        settings: HeadSettings,
        tokenizer: Tokenizer,
        chats: ChatReader,
        pipeline: Pipeline,
        answering: Answering,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._chats = chats
        self._pipeline = pipeline
        self._answering = answering
        self._clock = clock

    def deliver(self, news: Sequence[News]) -> None:
        """In the loop's thread."""
        self._answering.deliver(news)

    def application(self) -> web.Application:
        application = web.Application(
            client_max_size=REQUEST_BODY_BYTES_MAX, middlewares=[self._answer_errors, self._ask_for_key]
        )
        application.router.add_get("/health", self._health)
        application.router.add_get("/v1/health", self._health)
        application.router.add_get("/props", self._props)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_post("/tokenize", self._tokenize)
        application.router.add_post("/detokenize", self._detokenize)
        application.router.add_post("/apply-template", self._apply_template)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/chat/completions/input_tokens", self._count)
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
        template, special = self._chats.template, self._tokenizer
        props: Json = {
            "default_generation_settings": {"n_ctx": self._settings.context_length},
            "total_slots": self._settings.sequences,
            "model_alias": self._settings.name,
            "chat_template": template.source,
            "chat_template_caps": template.for_tools.abilities.to_fields(),
            "chat_template_is_fallback": template.is_fallback,
            "bos_token": special.special_text(special.beginning),
            "eos_token": special.special_text(special.end),
            "modalities": {"vision": False, "audio": False},
            "ring": to_fields(self._pipeline.ring),
        }
        if template.broken is not None:
            props["chat_template_error"] = template.broken
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
        pieces = [{"id": token, "piece": self._spelling(token)} for token in tokens]
        return _json(chunks.dump({"tokens": pieces}))

    def _spelling(self, token: int) -> str | list[int]:
        """Of a token that is part of a character only, its bytes as numbers: `post_tokenize` of
        llama-server."""
        piece = self._tokenizer.piece(token)
        try:
            return piece.decode() if piece else self._tokenizer.detokenize([token])
        except UnicodeDecodeError:
            return list(piece)

    async def _detokenize(self, request: web.Request) -> web.Response:
        asked = read_as(read_object(await request.read()), Detokenize)
        tokens = [checked(token, self._tokenizer.size, "tokens") for token in asked.tokens]
        return _json(chunks.dump({"content": self._tokenizer.detokenize(tokens)}))

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._answering.exposition(), headers={"Content-Type": counters.TYPE})

    async def _apply_template(self, request: web.Request) -> web.Response:
        body = read_object(await request.read())
        return _json(chunks.dump({"prompt": self._chats.prompt(body, self._now())}))

    async def _count(self, request: web.Request) -> web.Response:
        """How long the prompt of a chat is."""
        prompt = self._chats.prompt(read_object(await request.read()), self._now())
        counted = {"object": "response.input_tokens", "input_tokens": len(self._cut(prompt, True))}
        return _json(chunks.dump(counted))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.epoch())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body, fields = self._read(await request.read(), "chat")
        chat = self._chats.read(body, fields, read_wish(body), self._now())
        asked = Asked(
            "chat", [self._cut(chat.prompt, True)], fields, chat.wish, chat.parser, chat.shown, chat.begun
        )
        return await self._answering.answer(request, asked)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body, fields = self._read(await request.read(), "text")
        if "prompt" not in body:
            raise RequestRefused('"prompt" is required', parameter="prompt")
        prompts = read_prompts(body["prompt"], self._tokenizer.size, self._cut)
        return await self._answering.answer(request, Asked("text", prompts, fields, read_wish(body)))

    def _read(self, raw: bytes, route: Route) -> tuple[Body, Fields]:
        self._check_ring()
        body = read_object(raw)
        refuse_unserved(body, is_chat=route == "chat")
        return body, read_fields(body)

    def _cut(self, text: str, add_special: bool) -> list[int]:
        return self._tokenizer.tokenize(text, add_special=add_special, parse_special=True)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
