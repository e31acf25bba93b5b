"""One question to the engine, answered by a child process that ends with it: its last line of output."""

import asyncio
import sys
from collections.abc import Mapping, Sequence

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.child import ENVIRONMENT, explain
from mesh_llm.runtime.children import Child
from mesh_llm.runtime.tasks import beside


async def ask_child(
    name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], seconds_max: float
) -> str:
    """What `python -m module` says. Raises EngineFailed with its own reason, or where it takes too long."""
    argv = [sys.executable, "-P", "-m", module, *arguments]
    child = await Child.spawn(f"engine {name}", argv, {**environment, **ENVIRONMENT}, b"")
    lines: list[str] = []
    try:
        async with asyncio.timeout(seconds_max), beside(stderr=child.collect_tail()):
            async for line in child.lines():
                lines.append(line)
            status = await child.wait()
    except TimeoutError:
        raise EngineFailed(f"the engine did not name its {name} within {seconds_max:.0f} s") from None
    finally:
        await child.stop()
    if status != 0 or not lines:
        raise EngineFailed(f"the engine cannot be loaded: {explain(status, child.tail)}")
    return lines[-1]
