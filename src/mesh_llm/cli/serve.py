"""`mesh-llm --model ...`: runs a node until somebody says stop. Without a model: instructions."""

import asyncio
import logging
import os
import random
import signal
from argparse import Namespace

from mesh_llm import __version__
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.display import display_for
from mesh_llm.core.quantities import human_bytes
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node import Doors, NodeSettings, run_node
from mesh_llm.runtime.clock import Clock

logger = logging.getLogger(__name__)

STOPPED_TWICE = 130

INSTRUCTIONS = """\
No model was asked for, so this node serves none yet. Try:
  mesh-llm --model SmolLM2-135M-Instruct   a small model (98 MB), for a first try
  mesh-llm download                        the catalogue
  mesh-llm models                          what is on disk, and whether it fits this machine
  mesh-llm gpus                            what this machine has to compute on
  mesh-llm --help                          everything else"""


async def run(arguments: Namespace) -> int:
    """Status 0 once stopped by a signal."""
    home = home_of(arguments)
    settings = NodeSettings(
        models=tuple(arguments.model),
        port=arguments.port,
        console_port=arguments.console,
        listen_all=arguments.listen_all,
        api_key=arguments.api_key,
        memory_bytes_max=arguments.max_vram,
        devices=arguments.device,
        context_length=arguments.ctx_size,
        slots=arguments.parallel,
        places=ModelPlaces.from_environment(os.environ, home),
    )
    logger.info("mesh-llm %s", __version__)
    if not settings.models:
        logger.info(INSTRUCTIONS)
        _name_models_on_disk(settings.places)
    with display_for(arguments.log_format) as display:
        doors = Doors(os.environ, display.show, Clock(), random.SystemRandom())
        await _until_stopped(asyncio.current_task(), settings, doors)
    return 0


def _name_models_on_disk(places: ModelPlaces) -> None:
    for model in Library(places, load_catalogue(places.own_catalogue)).models():
        logger.info("  mesh-llm --model %s   on disk, %s", model.name, human_bytes(model.bytes))


async def _until_stopped(me: "asyncio.Task[None] | None", settings: NodeSettings, doors: Doors) -> None:
    """A first SIGINT or SIGTERM stops everything in order, a second one at once."""
    assert me is not None
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            os._exit(STOPPED_TWICE)  # children end with us: their lifeline is cut
        stopping = True
        logger.info("stopping")
        me.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await run_node(settings, doors)
    except asyncio.CancelledError:
        if not stopping:
            raise
