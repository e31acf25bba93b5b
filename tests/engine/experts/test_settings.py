import pytest

from mesh_llm.engine.experts.settings import (
    CalibratingSettings,
    JudgingSettings,
    Loading,
    Settings,
    TryingSettings,
    fields_of,
    to_line,
)

LOADING = Loading("/models/a.gguf", threads=2, gpu_layers=-1, repacks=False)


@pytest.mark.parametrize(
    "settings",
    [
        CalibratingSettings(LOADING, 16, (0, 1, 2), 8, None),
        JudgingSettings(LOADING, "/models/a.json", "ab" * 16, is_full=True, chunks=4),
        TryingSettings(LOADING, batch=64),
    ],
)
def test_a_child_is_told_what_its_node_decided(settings: Settings):
    line = to_line(settings)
    assert b"\n" not in line
    assert type(settings)(**fields_of(line)) == settings
