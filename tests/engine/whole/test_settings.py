from pathlib import Path

from mesh_llm.engine.whole.settings import EngineSettings
from tests.engine.settings_for_tests import settings_for


def test_settings_cross_to_the_child_unchanged_and_in_one_line():
    settings = settings_for(Path("/models/ein Modell\nmit Umbruch.gguf"), device_shares=(1.0, 0.0))
    line = settings.to_line()
    assert b"\n" not in line
    assert EngineSettings.from_line(line) == settings
