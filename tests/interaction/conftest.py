"""SDK clients pointed at a whole node, started as a user starts it, shared by all tests that only ask."""

import json
import subprocess
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import anthropic
import openai
import pytest

from tests.interaction.nodes import BOUND_S, COMMAND, MODEL, environment


@pytest.fixture(scope="session")
def url(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Of a node that is ready."""
    flags = ("--model", MODEL, "--port", "0", "--console", "0", "--log-format", "json")
    home = tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [*COMMAND, *flags], env=environment(store, home), stderr=subprocess.PIPE, text=True
    ) as node:
        try:
            assert node.stderr is not None
            port, ready = None, False
            while port is None or not ready:
                line = json.loads(node.stderr.readline())
                port = line.get("api_port", port)
                ready = ready or "is ready" in line["message"]
            yield f"http://127.0.0.1:{port}"
        finally:
            node.terminate()
            assert node.wait(BOUND_S) == 0


@pytest.fixture
async def ai(url: str) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncGenerator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client
