"""`mesh-llm --model ...`: runs a node until somebody says stop. Without a model: instructions."""

import asyncio
import functools
import logging
import os
import random
from argparse import Namespace

from mesh_llm import __version__
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.contradictions import refuse_contradictions
from mesh_llm.cli.display import display_for
from mesh_llm.cli.stopping import until_stopped
from mesh_llm.core.quantities import human_bytes
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node import Doors, NodeSettings, run_node
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.tasks import unwrapped

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
    refuse_contradictions(arguments)
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
        return await until_stopped(functools.partial(_run, settings, doors))


def _name_models_on_disk(places: ModelPlaces) -> None:
    for model in Library(places, load_catalogue(places.own_catalogue)).models():
        logger.info("  mesh-llm --model %s   on disk, %s", model.name, human_bytes(model.bytes))


async def _run(settings: NodeSettings, doors: Doors, stopping: asyncio.Event) -> None:
    with unwrapped():
        async with asyncio.TaskGroup() as tasks:
            node = tasks.create_task(run_node(settings, doors), name="node")
            asked = tasks.create_task(_cancel_when(stopping, node))
            node.add_done_callback(lambda _: asked.cancel())


async def _cancel_when(stopping: asyncio.Event, node: "asyncio.Task[None]") -> None:
    await stopping.wait()
    node.cancel()
