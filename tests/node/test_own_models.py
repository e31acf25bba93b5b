from pathlib import Path

import pytest

from mesh_llm.node.own_models import OwnModels
from tests.node.settings import doors, settings_in


@pytest.mark.parametrize("client", [False, True])
def test_models_may_use_memory_on_every_node_but_a_client(tmp_path: Path, client: bool):
    models = OwnModels(settings_in(tmp_path, join=("token",), client=client), doors(), lambda: None)
    assert (models.memory_bytes == 0) is client
