"""What is promised of a whole node: it answers, survives its engines, refuses clearly, leaves nothing."""

import asyncio
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import aiohttp
import gguf
import numpy as np
import psutil
import pytest

from tests.interaction.nodes import MODEL, STOP_S, Node, chat, chat_until_ready, ended, get, gone, started

pytestmark = pytest.mark.real


async def engine_of(node: Node) -> psutil.Process:
    """The engine's process: the child of the node that has a child of its own, its watcher."""
    await node.wait_for_message("is ready")
    (engine,) = psutil.Process(node.pid).children()
    return engine


async def test_one_command_and_a_model_answers(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", MODEL) as node:
        body = await chat_until_ready(await node.url(), model=MODEL)
        assert body["choices"][0]["message"]["content"].strip()
        assert body["model"] == MODEL


async def test_two_models_answer_by_name_and_the_larger_one_without_a_name(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", MODEL, "--model", "Gemma-3-270M") as node:
        url = await node.url()
        for name in (MODEL, "Gemma-3-270M"):
            assert (await chat_until_ready(url, model=name))["model"] == name
        assert (await chat_until_ready(url))["model"] == "Gemma-3-270M"
        status, body = await chat(url, model="Qwen3-8B")
        assert (
            status == 404 and MODEL in body["error"]["message"] and "Gemma-3-270M" in body["error"]["message"]
        )


async def test_two_files_of_one_name_are_refused_and_one_file_twice_is_served_once(
    store: Path, smollm2: Path, tmp_path: Path
):
    twin = tmp_path / "twin" / smollm2.name
    twin.parent.mkdir()
    twin.symlink_to(smollm2)
    status, _, err = await ended(store, tmp_path, "--model", MODEL, "--model", str(twin), "--port", "0")
    assert status == 2 and "Two models are called" in err
    async with started(store, tmp_path, "--model", MODEL, "--model", MODEL.lower()) as node:
        await chat_until_ready(await node.url())
        assert len(psutil.Process(node.pid).children()) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything_also_during_an_answer(
    store: Path, tmp_path: Path, how: signal.Signals
):
    async with started(store, tmp_path, "--model", MODEL, "--drain", "0") as node:
        url = await node.url()
        await chat_until_ready(url)
        family = node.descendants()
        assert len(family) == 2
        async with aiohttp.ClientSession() as client:
            body = {"messages": [{"role": "user", "content": "Go on."}], "stream": True, "ignore_eos": True}
            async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
                await answer.content.readline()
                node.process.send_signal(how)
                assert await node.wait_for_end(STOP_S) == 0
                assert await gone(family)


async def test_a_signal_stops_a_node_that_still_loads(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", "Gemma-3-270M") as node:
        await node.wait_for_message("loading")
        family = node.descendants()
        assert await node.stop(signal.SIGTERM) == 0
        assert await gone(family)


@pytest.mark.parametrize("moment", ["loading", "is ready"])
async def test_killing_the_node_leaves_no_child_behind(store: Path, tmp_path: Path, moment: str):
    async with started(store, tmp_path, "--model", "Gemma-3-270M") as node:
        await node.wait_for_message(moment)
        family = node.descendants()
        assert len(family) == 2
        assert await node.stop(signal.SIGKILL) == -signal.SIGKILL
        assert await gone(family)


async def test_a_killed_engine_is_restarted_and_the_next_request_works(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", MODEL) as node:
        url = await node.url()
        (await engine_of(node)).kill()
        warning = await node.wait_for_message("the engine ended")
        assert "killed by SIGKILL" in warning["message"]
        assert (await chat_until_ready(url))["choices"]


async def test_an_engine_that_dies_during_an_answer_is_a_502_with_the_reason(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", MODEL) as node:
        url = await node.url()
        engine = await engine_of(node)
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(chat(url, max_tokens=4000, ignore_eos=True))
            await wait_for_request_in_flight(await node.console_url())
            engine.kill()
        status, body = answer.result()
        assert status == 502 and "killed by SIGKILL" in body["error"]["message"]


async def wait_for_request_in_flight(console: str) -> None:
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as client,
        client.get(f"{console}/api/events") as events,
    ):
        async for line in events.content:
            if line.startswith(b"data: ") and json.loads(line[6:])["inflight_requests"] > 0:
                return


async def test_a_model_that_fails_three_times_is_reported_and_the_node_lives_on(store: Path, tmp_path: Path):
    strange = tmp_path / "strange.gguf"
    write_model_of_unknown_architecture(strange)
    async with started(store, tmp_path, "--model", str(strange), "--model", MODEL) as node:
        url = await node.url()
        failed = await node.wait_for_message("has failed 3 times")
        assert "unknown model architecture" in failed["message"]
        status, body = await chat(url, model="strange")
        assert status == 502 and "unknown model architecture" in body["error"]["message"]
        assert (await chat_until_ready(url))["model"] == MODEL


def write_model_of_unknown_architecture(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "neverheardof")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_head_count(1)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def test_without_a_model_there_are_instructions_and_a_console(store: Path, tmp_path: Path):
    async with started(store, tmp_path) as node:
        await node.wait_for_message("mesh-llm --model SmolLM2-135M-Instruct")
        status = await get(f"{await node.console_url()}/api/status")
        assert status["node_status"] == "Idle" and status["api_port"] is None
        assert await node.stop() == 0


async def test_a_taken_port_is_told_at_once_with_the_flag(store: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        status, _, err = await ended(store, tmp_path, "--model", MODEL, "--port", port, "--console", "0")
        assert status == 7 and f"port {port}" in err and "--port" in err
        status, _, err = await ended(store, tmp_path, "--model", MODEL, "--port", "0", "--console", port)
        assert status == 7 and "--console" in err


async def test_two_nodes_on_one_machine_are_two_homes_and_other_ports(store: Path, tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    async with (
        started(store, first, "--model", MODEL) as one,
        started(store, second, "--model", MODEL) as other,
    ):
        assert (await chat_until_ready(await one.url()))["choices"]
        assert (await chat_until_ready(await other.url()))["choices"]


async def test_other_machines_need_a_key(store: Path, tmp_path: Path):
    status, _, err = await ended(store, tmp_path, "--listen-all", "--model", MODEL)
    assert status == 2 and "--api-key" in err


async def test_with_a_key_nobody_gets_in_without_it(store: Path, tmp_path: Path):
    async with started(store, tmp_path, "--model", MODEL, "--listen-all", MESH_LLM_API_KEY="s3cret") as node:
        url = await node.url()
        await node.wait_for_message("is ready")
        status, body = await chat(url)
        assert status == 401 and "key" in body["error"]["message"]
        client = aiohttp.ClientSession(url, headers={"Authorization": "Bearer s3cret"})
        async with client, client.get("/v1/models") as answer:
            assert answer.status == 200
        assert not any("s3cret" in json.dumps(line) for line in node.log)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--port", "70000"], "--port"),
        (["--console", "x"], "--console"),
        (["--max-vram", "-1"], "--max-vram"),
        (["--parallel", "0"], "--parallel"),
        (["--ctx-size", "1e9"], "--ctx-size"),
        (["--log-format", "xml"], "--log-format"),
        (["--device", "CUDA9", "--model", MODEL], "CUDA9"),
        (["--api-key", "with space"], "--api-key"),
        (["--modle"], "--modle"),
        (["--model", MODEL, "--split", "experts", "--port", "0", "--console", "0"], "--split layers"),
    ],
)
async def test_a_wrong_flag_is_named(store: Path, tmp_path: Path, flags: list[str], word: str):
    status, _, err = await ended(store, tmp_path, *flags)
    assert status == 2 and word in err and "Traceback" not in err


async def test_a_model_that_nobody_knows_is_told_with_the_nearest(store: Path, tmp_path: Path):
    status, _, err = await ended(store, tmp_path, "--model", "Qwen3-9B", "--port", "0", "--console", "0")
    assert status == 3 and "Qwen3-8B" in err


async def test_a_model_that_fits_neither_this_node_nor_stages_is_refused_with_numbers(
    store: Path, tmp_path: Path
):
    strange = tmp_path / "strange.gguf"
    strange.write_bytes((store / f"{MODEL}.gguf").read_bytes().replace(b"llama", b"llamb"))
    flags = ("--model", str(strange), "--max-vram", "0.1", "--port", "0", "--console", "0")
    status, _, err = await ended(store, tmp_path, *flags)
    assert status == 5 and "llamb" in err and "100.0 MB" in err, err


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def overwrite(path: Path) -> None:
    path.write_text("this is no model")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("damage", "word"), [(truncate, "missing"), (overwrite, "GGUF"), (empty, "empty")])
async def test_a_damaged_file_is_refused_before_anything_starts(
    store: Path, smollm2: Path, tmp_path: Path, damage, word: str
):
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(smollm2, copy)
    damage(copy)
    status, _, err = await ended(store, tmp_path, "--model", str(copy), "--port", "0", "--console", "0")
    assert status == 4 and word in err and "Traceback" not in err


async def test_flipped_weights_of_a_known_file_are_refused(smollm2: Path, tmp_path: Path):
    """The catalogue knows this file's SHA-256; the engine would load it and answer nonsense."""
    own_store = tmp_path / "store"
    own_store.mkdir()
    copy = own_store / "SmolLM2-135M-Instruct.gguf"
    shutil.copyfile(smollm2, copy)
    with copy.open("r+b") as file:
        file.seek(50_000_000)
        file.write(bytes(byte ^ 0xFF for byte in file.read(2000)))
    status, _, err = await ended(own_store, tmp_path, "--model", MODEL, "--port", "0", "--console", "0")
    assert status == 4 and "b179c952" in err


async def test_the_version_is_printed(store: Path, tmp_path: Path):
    status, out, _ = await ended(store, tmp_path, "--version")
    assert status == 0 and out.startswith("mesh-llm ")
