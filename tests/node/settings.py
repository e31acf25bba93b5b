"""What a node in a test is told, where the test does not care."""

import random
from pathlib import Path
from typing import Any

from mesh_llm.mesh.transport import NoRelays
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node.settings import Doors, NodeSettings
from mesh_llm.runtime.clock import Clock


def settings_in(home: Path, **said: Any) -> NodeSettings:
    usual: dict[str, Any] = {
        "home": home,
        "models": (),
        "endpoints": (),
        "port": 0,
        "console_port": 0,
        "listen_all": False,
        "api_key": None,
        "memory_bytes_max": None,
        "devices": (),
        "context_length": None,
        "slots": 1,
        "places": ModelPlaces(home, home, home),
        "join": (),
        "client": False,
        "ephemeral": False,
        "name": "attic",
        "bind_port": 0,
        "relays": NoRelays(),
        "invite_ttl_s": 60,
        "drain_s": 0,
    }
    return NodeSettings(**usual | said)


def doors() -> Doors:
    return Doors({}, print, Clock(), random.SystemRandom())
