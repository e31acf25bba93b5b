"""One measurement by a child: settings in, shares of the way while it works, one answer out."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.child import EngineChild
from mesh_llm.engine.experts.settings import Settings, to_line

OnShare = Callable[[str, float], None]
"""Of `loading` and of `computing`, the share that is done, 0 to 1."""


def nobody(_word: str, _share: float) -> None:
    """Listens to no shares."""


async def answer_of(
    name: str,
    module: str,
    settings: Settings,
    environment: Mapping[str, str],
    seconds_max: float,
    on_share: OnShare,
) -> dict[str, Any]:
    """Raises EngineFailed with the child's own reason, or where it takes too long."""

    def hear(line: str) -> None:
        word, _, fields = line.partition(" ")
        if word in ("loading", "computing"):
            on_share(word, float(json.loads(fields)["fraction"]))

    try:
        async with (
            asyncio.timeout(seconds_max),
            EngineChild.start(name, module, to_line(settings), environment, hear) as child,
        ):
            return await child.wait_until_ready()
    except TimeoutError:
        raise EngineFailed(f"the engine's {name} was not done within {seconds_max:.0f} s") from None
