from pathlib import Path

import pytest

from mesh_llm.node.own_models import OwnModels
from tests.node.settings import doors, settings_in


@pytest.mark.parametrize("client", [False, True])
def test_models_may_use_memory_on_every_node_but_a_client(tmp_path: Path, client: bool):
    models = OwnModels(settings_in(tmp_path, join=("token",), client=client), doors(), lambda: None)
    assert (models.memory_bytes == 0) is client


def test_memory_that_a_model_took_is_free_again_when_it_has_ended(tmp_path: Path):
    changes: list[int] = []
    models = OwnModels(settings_in(tmp_path), doors(), lambda: changes.append(models.room_bytes))
    models.planned.set()
    room = models.room_bytes
    give_back = models.take(room // 4)
    models.take(room // 2)
    assert models.room_bytes == room - room // 4 - room // 2
    give_back()
    assert changes == [models.room_bytes] == [room - room // 2]
