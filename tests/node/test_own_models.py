import random
from pathlib import Path

import pytest

from mesh_llm.mesh.transport import NoRelays
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node.own_models import OwnModels
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.runtime.clock import Clock


def own_models(home: Path, *, client: bool) -> OwnModels:
    settings = NodeSettings(
        home=home,
        models=(),
        endpoints=(),
        port=0,
        console_port=0,
        listen_all=False,
        api_key=None,
        memory_bytes_max=None,
        devices=(),
        context_length=None,
        slots=1,
        places=ModelPlaces(home, home, home),
        join=("token",),
        client=client,
        ephemeral=False,
        name="attic",
        bind_port=0,
        relays=NoRelays(),
        invite_ttl_s=60,
        drain_s=0,
    )
    return OwnModels(settings, Doors({}, print, Clock(), random.Random(1)), lambda: None)


@pytest.mark.parametrize("client", [False, True])
def test_models_may_use_memory_on_every_node_but_a_client(tmp_path: Path, client: bool):
    assert (own_models(tmp_path, client=client).memory_bytes == 0) is client
