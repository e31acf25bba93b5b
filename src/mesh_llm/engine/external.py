"""An existing OpenAI-compatible server (vLLM, Ollama, TGI, llama-server, ...) whose models this node serves.

Looks at its list of models now and then; each is a backend to the gateway. Starts and stops nothing.
No proxy is used: the gateway's requests go directly too, and what is listed must be what can be asked.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace

import aiohttp

from mesh_llm.core.quantities import MIB
from mesh_llm.core.serving import Condition, Endpoint, Ready, Restarting, ServedModel, Stopped
from mesh_llm.engine.listing import NoListing, read_listing
from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.clock import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
"""A model that such a server gains or loses is seen within this."""

LOOK_AGAIN_S = 5.0
"""While it does not answer."""

ANSWER_SECONDS_MAX = 5.0
"""A list of models costs a server nothing; one that is silent for so long would not answer a request."""

ANSWER_BYTES_MAX = 4 * MIB
"""OpenRouter's list of hundreds of models, the longest known, has half a megabyte."""

EXPLANATION_WAIT_S = 2.0
"""From a broken answer to the next look's end, as the supervisor waits for an engine's."""


class ExternalModel:
    """One model of an external server: a backend."""

    def __init__(self, server: "ExternalServer", model: ServedModel, condition: Condition) -> None:
        self.model = model
        self.condition = condition
        self._server = server

    def __repr__(self) -> str:
        return f"<ExternalModel {self.model.name} {type(self.condition).__name__}>"

    async def explain_failure(self) -> str:
        return await self._server.explain_failure()


class ExternalServer:
    def __init__(
        self,
        endpoint: Endpoint,
        clock: Clock,
        on_change: Callable[[], None],
        *,
        look_every_s: float = LOOK_EVERY_S,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:
        """`on_change` is called when `backends` or a condition among them has become another."""
        self._endpoint = endpoint
        self._clock = clock
        self._on_change = on_change
        self._look_every_s = look_every_s
        self._look_again_s = look_again_s
        self._models: dict[str, ExternalModel] = {}
        self._looks = 0
        """That brought an answer."""
        self._failures = 0
        """In a row."""
        self._problem = ""
        self._wake = Bell()
        self._looked = Bell()

    def __repr__(self) -> str:
        return f"<ExternalServer {self._endpoint.url}>"

    @property
    def backends(self) -> tuple[ExternalModel, ...]:
        """Its models as seen last; empty before the first answer. Those that vanish from its list leave."""
        return tuple(self._models.values())

    async def run(self) -> None:
        """Until cancelled. A server that does not answer is a warning and is asked again."""
        session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX),
            trust_env=False,
        )
        async with session:
            while True:
                await self._look(session)
                self._looked.ring()
                await self._pause()

    async def explain_failure(self) -> str:
        """Why it broke off an answer: looks once more, but does not wait long for that."""
        self._wake.ring()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXPLANATION_WAIT_S):
                await self._looked.wait_for_ring()
        return f"{self._endpoint.url}: {self._problem or 'it broke off the answer without a word'}"

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._look_again_s if self._failures else self._look_every_s):
                await self._wake.wait_for_ring()

    async def _look(self, session: aiohttp.ClientSession) -> None:
        try:
            found = read_listing(await self._ask(session), int(self._clock.epoch()))
        except NoListing as problem:
            self._fail(str(problem))
        except TimeoutError:
            self._fail(f"it has not answered for {ANSWER_SECONDS_MAX:.0f} s")
        except aiohttp.ClientSSLError as error:
            self._fail(f"it gives no connection that this machine trusts ({error})")
        except (aiohttp.ClientError, OSError) as error:
            self._fail(f"it cannot be reached ({error or type(error).__name__})")
        else:
            self._accept(found)

    async def _ask(self, session: aiohttp.ClientSession) -> object:
        key = self._endpoint.api_key
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        url = f"{self._endpoint.url}/v1/models"
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            _expect_success(response)
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise NoListing(f"its list of models has more than {ANSWER_BYTES_MAX} bytes")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise NoListing("its /v1/models is no JSON: it does not speak OpenAI's API") from None

    def _accept(self, found: tuple[ServedModel, ...]) -> None:
        """Models seen before stay the same backends: requests under way hold on to them."""
        before, seen = self._models, self._seen()
        self._models = {model.name: self._refreshed(before.get(model.name), model) for model in found}
        for name in before.keys() - self._models.keys():
            before[name].condition = Stopped()
        if self._failures or not self._looks or before.keys() != self._models.keys():
            logger.info("%s serves %s", self._endpoint.url, ", ".join(self._models) or "no model yet")
        self._failures, self._problem = 0, ""
        self._looks += 1
        if self._seen() != seen:
            self._on_change()

    def _refreshed(self, known: ExternalModel | None, model: ServedModel) -> ExternalModel:
        """The known backend with what is told of its model now, or a new one."""
        if known is None:
            return ExternalModel(self, model, Ready(self._endpoint))
        known.model = replace(model, created=known.model.created)
        known.condition = Ready(self._endpoint)
        return known

    def _seen(self) -> list[tuple[ServedModel, Condition]]:
        return [(backend.model, backend.condition) for backend in self.backends]

    def _fail(self, problem: str) -> None:
        if not self._failures or problem != self._problem:
            logger.warning(
                "%s: %s; asking again every %.0f s", self._endpoint.url, problem, self._look_again_s
            )
        self._failures += 1
        self._problem = problem
        reason = f"{self._endpoint.url}: {problem}"
        retry_after_s = max(1, round(self._look_again_s))
        for backend in self._models.values():
            backend.condition = Restarting(reason, self._failures, retry_after_s)
        self._on_change()


def _expect_success(response: aiohttp.ClientResponse) -> None:
    """Raises NoListing with the cure for what a status says."""
    match response.status:
        case 200:
            return
        case 401 | 403:
            raise NoListing(
                f"it wants a key (HTTP {response.status}): set MESH_LLM_ENDPOINT_KEY, "
                "or put the key before the host, https://KEY@host"
            )
        case 301 | 302 | 303 | 307 | 308:
            raise NoListing(f"it redirects (HTTP {response.status}): give the address that it redirects to")
        case 404:
            raise NoListing("it has no /v1/models: check the address, or whether it speaks OpenAI's API")
        case status:
            raise NoListing(f"it answers HTTP {status}")
