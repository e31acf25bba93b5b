import os

import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.devices import describe, find_devices


@pytest.mark.real
async def test_the_engine_names_its_accelerators_and_leaves_out_the_processor():
    assert all(device.name != "CPU" for device in await find_devices())


@pytest.mark.real
async def test_an_engine_that_cannot_be_loaded_says_why(tmp_path):
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1: cannot open')", encoding="utf-8")
    with pytest.raises(EngineFailed, match="apt install libgomp1"):
        await find_devices({**os.environ, "PYTHONPATH": str(tmp_path)})


def test_a_graphics_card_is_a_device_and_a_processor_is_none():
    card = {"name": "CUDA0", "description": "H200", "memory_total": 9, "memory_free": 8}
    gpu = "ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU"
    assert describe({**card, "type": gpu}) == {
        "name": "CUDA0",
        "description": "H200",
        "memory_bytes": 9,
        "memory_bytes_free": 8,
    }
    assert describe({**card, "type": "ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU"}) is None
