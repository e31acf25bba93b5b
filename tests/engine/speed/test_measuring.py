import os
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.speed import probe_model
from mesh_llm.engine.speed.measuring import measure_speed
from mesh_llm.models.gguf.header import read_file_header


@pytest.mark.real
async def test_a_machine_goes_through_megabytes_to_terabytes_of_weights_a_second():
    assert 1e6 < await measure_speed(1) < 1e15


@pytest.mark.real
async def test_an_engine_that_is_none_has_no_speed(tmp_path: Path):
    with pytest.raises(EngineFailed, match="MESH_LLM_LIBLLAMA"):
        await measure_speed(1, {**os.environ, "MESH_LLM_LIBLLAMA": str(tmp_path / "none.so")})


def test_the_probe_is_a_whole_file_of_the_size_that_it_says(tmp_path: Path):
    path = tmp_path / "probe.gguf"
    size = probe_model.write(path, Random(1))
    header = read_file_header(path)
    assert header.weights_bytes == size > 64 * 2**20
    assert header.bytes_expected <= path.stat().st_size < header.bytes_expected + probe_model.ALIGNMENT
