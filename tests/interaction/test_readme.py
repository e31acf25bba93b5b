"""What the README tells a person to type, typed."""

import re
import subprocess
import sys
from asyncio import to_thread
from pathlib import Path

import pytest

from tests.interaction.nodes import chat_until_ready, started

pytestmark = pytest.mark.real

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def example(language: str, about: str) -> str:
    """The README's only block of that language in which `about` occurs."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (block,) = [block for block in blocks if about in block]
    return block


async def test_the_first_requests_are_answered(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", "SmolLM2-135M-Instruct") as node:
        url = await node.url()
        await chat_until_ready(url)
        port = url.rpartition(":")[2]
        commands = (
            ["sh", "-c", example("sh", "curl localhost").replace("9337", port)],
            [sys.executable, "-c", example("python", "OpenAI").replace("9337", port)],
        )
        for command in commands:
            done = await to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.split()) >= 2
            assert '"error"' not in done.stdout


def test_the_test_command_is_what_the_checks_run():
    assert "make test " in README
    assert "make test" in (Path(__file__).parents[2] / ".ci" / "run").read_text("utf-8")
