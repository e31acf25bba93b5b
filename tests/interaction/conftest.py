from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anthropic
import openai
import pytest

from tests.gateway.engine import Engine, a_backend, shared_engine
from tests.gateway.serving import serving


@pytest.fixture(scope="session")
def engine(smollm2: Path) -> Generator[Engine]:
    engine = shared_engine(smollm2)
    yield engine
    engine.stop()


@pytest.fixture
async def url(engine: Engine) -> AsyncGenerator[str]:
    async with serving([a_backend(engine.endpoint)]) as (_, url):
        yield url


@pytest.fixture
async def ai(url: str) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client
