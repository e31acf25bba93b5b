import os
import signal

import psutil
import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.whole.llama_server import LlamaServer
from mesh_llm.engine.whole.settings import EngineSettings
from tests.engine.settings_for_tests import settings_for

pytestmark = pytest.mark.real


def start(settings: EngineSettings, seen: list[float] | None = None):
    return LlamaServer.start(settings, os.environ, (seen if seen is not None else []).append)


async def test_a_model_loads_tells_how_far_it_is_and_listens_on_loopback_only(smollm2):
    seen: list[float] = []
    async with start(settings_for(smollm2), seen) as server:
        endpoint = await server.wait_until_ready()
        assert endpoint.url.startswith("http://127.0.0.1:")
        assert seen == sorted(seen) and seen[-1] == 1.0
        addresses = {c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}


async def test_leaving_stops_the_engine_and_all_it_started(smollm2):
    async with start(settings_for(smollm2)) as server:
        await server.wait_until_ready()
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    gone, alive = psutil.wait_procs(family, timeout=5)
    assert len(gone) == 2 and not alive


async def test_a_killed_engine_is_noticed_and_its_end_explained(smollm2):
    async with start(settings_for(smollm2)) as server:
        await server.wait_until_ready()
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait_for_end() == "killed by SIGKILL"


async def test_a_file_that_the_engine_refuses_is_told_with_its_own_reason(tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"this is no model")
    async with start(settings_for(bad)) as server:
        with pytest.raises(EngineFailed, match="invalid magic"):
            await server.wait_until_ready()


async def test_the_api_key_shows_in_no_process_list_and_no_secret_reaches_the_engine(smollm2):
    settings = settings_for(smollm2)
    environment = {**os.environ, "HF_TOKEN": "hf_secret", "MESH_LLM_API_KEY": "secret"}
    async with LlamaServer.start(settings, environment, lambda _: None) as server:
        await server.wait_until_ready()
        process = psutil.Process(server.pid)
        assert settings.api_key not in " ".join(process.cmdline())
        assert not {"HF_TOKEN", "MESH_LLM_API_KEY"} & set(process.environ())
