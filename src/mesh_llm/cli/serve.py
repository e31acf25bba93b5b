"""`mesh-llm --model ...`: runs a node until somebody says stop. Without a model: instructions."""

import functools
import logging
import os
import random
import socket
from argparse import ArgumentTypeError, Namespace

from mesh_llm import __version__
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.contradictions import refuse_contradictions
from mesh_llm.cli.display import display_for
from mesh_llm.cli.stopping import until_stopped
from mesh_llm.cli.values import NAME_LENGTH_MAX, node_name
from mesh_llm.core.experts import QUALITY_RATIO_MAX
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.address import parse_endpoint
from mesh_llm.mesh.transport import NoRelays, OwnRelays, PublicRelays, Relays
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node import Doors, NodeSettings, run_node
from mesh_llm.runtime.clock import Clock

logger = logging.getLogger(__name__)

INSTRUCTIONS = """\
No model was asked for, so this node serves none yet. Try:
  mesh-llm --model SmolLM2-135M-Instruct   a small model (98 MB), for a first try
  mesh-llm download                        the catalogue
  mesh-llm models                          what is on disk, and whether it fits this machine
  mesh-llm gpus                            what this machine has to compute on
  mesh-llm --help                          everything else"""


async def run(arguments: Namespace) -> int:
    """Status 0 once stopped by a signal, 130 where a second one had to hurry it."""
    settings = settings_of(arguments)
    logger.info("mesh-llm %s", __version__)
    if settings.alone:
        logger.info(INSTRUCTIONS)
        _name_models_on_disk(settings.places)
    with display_for(arguments.log_format) as display:
        doors = Doors(os.environ, display.show, Clock(), random.SystemRandom())
        return await until_stopped(functools.partial(run_node, settings, doors))


def settings_of(arguments: Namespace) -> NodeSettings:
    """Raises RequestRefused for flags that contradict each other, or an endpoint that is none."""
    refuse_contradictions(arguments)
    home = home_of(arguments)
    endpoint_key = os.environ.get("MESH_LLM_ENDPOINT_KEY") or None
    return NodeSettings(
        home=home,
        models=tuple(arguments.model),
        endpoints=tuple(parse_endpoint(url, endpoint_key) for url in arguments.endpoint),
        port=arguments.port,
        console_port=arguments.console,
        listen_all=arguments.listen_all,
        api_key=arguments.api_key,
        memory_bytes_max=arguments.max_vram,
        devices=arguments.device,
        context_length=arguments.ctx_size,
        slots=arguments.parallel,
        places=ModelPlaces.from_environment(os.environ, home),
        join=tuple(arguments.join),
        client=arguments.client,
        ephemeral=arguments.ephemeral,
        name=arguments.name or _default_name(),
        bind_port=arguments.bind_port,
        relays=_relays(arguments),
        invite_ttl_s=arguments.invite_ttl,
        drain_s=arguments.drain,
        stages=arguments.stages or (0 if arguments.split in (True, "layers") else None),
        activations=None if arguments.activations == "auto" else arguments.activations,
        split_by=None if arguments.split is True else arguments.split,
        expert_layout=arguments.moe_layout or "best",
        quality_ratio_max=arguments.moe_quality or QUALITY_RATIO_MAX,
    )


def _default_name() -> str:
    """The machine's; `node` where it has none that could be shown."""
    try:
        return node_name(socket.gethostname()[:NAME_LENGTH_MAX])
    except ArgumentTypeError:
        return "node"


def _relays(arguments: Namespace) -> Relays:
    if arguments.mesh_relay == "none":
        return NoRelays()
    return OwnRelays(tuple(arguments.relay)) if arguments.relay else PublicRelays()


def _name_models_on_disk(places: ModelPlaces) -> None:
    for model in Library(places, load_catalogue(places.own_catalogue)).models():
        logger.info("  mesh-llm --model %s   on disk, %s", model.name, human_bytes(model.bytes))
