from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tests.gateway.engine import Engine, a_backend, shared_engine
from tests.gateway.serving import Client, client_of


@pytest.fixture(scope="session")
def engine(smollm2: Path) -> Generator[Engine]:
    engine = shared_engine(smollm2)
    yield engine
    engine.stop()


@pytest.fixture
async def client(engine: Engine) -> AsyncGenerator[Client]:
    async with client_of([a_backend(engine.endpoint)]) as client:
        yield client
