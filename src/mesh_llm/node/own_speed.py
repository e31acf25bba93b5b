"""How fast this node reads weights: measured once, when somebody first plans with it."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from mesh_llm.core.errors import EngineFailed
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.speed.measuring import measure_speed
from mesh_llm.node.own_models import OwnModels

logger = logging.getLogger(__name__)

PATIENCE_S = 8.0
"""That a plan waits for it; it takes a second, or several where a GPU wakes up."""


class OwnSpeed:
    def __init__(self, models: OwnModels, environment: Mapping[str, str]) -> None:
        self._models = models
        self._environment = environment
        self._is_wanted = asyncio.Event()
        self._is_known = asyncio.Event()
        self._bytes_per_second = 0.0

    async def run(self) -> None:
        """Measures for whoever asks first."""
        await self._is_wanted.wait()
        try:
            self._bytes_per_second = await measure_speed(self._models.machine.cores, self._environment)
            logger.info("weights go by at %s a second here", human_bytes(int(self._bytes_per_second)))
        except EngineFailed as error:
            logger.warning("%s: layers are dealt out without it", error)
        self._is_known.set()

    async def get(self) -> float:
        """Bytes a second; 0 where it is not known in time."""
        self._is_wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._is_known.wait()
        return self._bytes_per_second
