"""A real engine child for tests, and backends that stand where the node's supervisor will stand."""

import atexit
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mesh_llm.core.serving import Condition, Endpoint, Ready, ServedModel
from tests.engine.served_model_for_tests import FACTS

CHILD = Path(__file__).with_name("engine_child.py")
API_KEY = "a key of the engine's own"
NAME = "SmolLM2-135M-Instruct"
SLOTS = 4
ENVIRONMENT = {"LLAMA_SERVER_ROUTER_PORT": "1", "GOMP_SPINCOUNT": "0", "GGML_NO_BACKTRACE": "1"}


class Engine:
    """One llama-server process. It ends when its standard input is closed, so it cannot outlive the tests."""

    def __init__(self, model: Path, **settings: object) -> None:
        told = {"model": str(model), "alias": NAME, "api_key": API_KEY, "slots": SLOTS, **settings}
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b'{"url"'):
                self.endpoint = Endpoint(json.loads(line)["url"], API_KEY)
                return
        raise AssertionError("the engine did not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(timeout=10)
            self._process.stdout.close()


@functools.cache
def shared_engine(model: Path) -> Engine:
    """The one engine of a test session, whichever folder asks first."""
    engine = Engine(model)
    atexit.register(engine.stop)
    return engine


@dataclass
class FixedBackend:
    model: ServedModel
    condition: Condition
    last_words: str = "it was killed (signal 9)"

    async def explain_failure(self) -> str:
        return self.last_words


def a_model(name: str = NAME, *, pooling: str | None = None, **changes: object) -> ServedModel:
    model = ServedModel(
        name=name,
        aliases=("smol",),
        facts=replace(FACTS, pooling=pooling),
        bytes=98_362_432,
        context_length=8192,
        kv_type="f16",
        slots=SLOTS,
        vision=False,
        created=1_700_000_000,
    )
    return replace(model, **changes)  # type: ignore[arg-type]


def a_backend(endpoint: Endpoint, **changes: object) -> FixedBackend:
    return FixedBackend(a_model(**changes), Ready(endpoint))  # type: ignore[arg-type]
