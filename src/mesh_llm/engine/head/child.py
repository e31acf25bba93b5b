"""The head's process: `python -m mesh_llm.engine.head.child`. The last layers, the ring's end, and HTTP.

It reads one line of settings, loads, says where it listens, and serves until its lifeline is cut. To the
parent (`pipeline_head.py`) it speaks lines on standard output: `loading {...}`, `ready {"url": ...}`, and
`ring {...}` at each change. Its reasons for failing are on standard error.
"""

import asyncio
import os
import random
import string
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from mesh_llm.core.errors import MeshError
from mesh_llm.engine.head import ring_door, ring_state
from mesh_llm.engine.head.answering import Answering
from mesh_llm.engine.head.app import HeadApp
from mesh_llm.engine.head.chat import ChatReader
from mesh_llm.engine.head.generation import News
from mesh_llm.engine.head.last_layers import LastLayers
from mesh_llm.engine.head.pipeline import Pipeline
from mesh_llm.engine.head.ring_state import RingState
from mesh_llm.engine.head.settings import HeadSettings
from mesh_llm.engine.head.template import ChatTemplate, SpecialTexts
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.tokenizer import Tokenizer
from mesh_llm.engine.parent import UNUSABLE, Parent, first_line
from mesh_llm.runtime import lifeline
from mesh_llm.runtime.clock import Clock
from mesh_llm.runtime.listening import LOOPBACK, listen, port_of, reserve
from mesh_llm.runtime.web import serve

LETTERS = string.ascii_letters + string.digits
"""Of the ids of calls, as in llama-server (random_string)."""

SWITCH_SECONDS = 0.0002
"""How long a thread may keep the interpreter from another: Python's 5 ms can be more than a token takes."""


def main() -> int:
    settings = HeadSettings.from_line(first_line())
    lifeline.hold()
    parent = Parent()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        layers = LastLayers(load_library(os.environ), settings, parent.tell_loaded)
    except (MeshError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return UNUSABLE
    asyncio.run(_serve(settings, layers, parent))
    return 0


async def _serve(settings: HeadSettings, layers: LastLayers, parent: Parent) -> None:
    loop = asyncio.get_running_loop()

    def tell(news: Sequence[News]) -> None:
        loop.call_soon_threadsafe(app.deliver, news)

    def tell_ring(state: RingState) -> None:
        loop.call_soon_threadsafe(parent.tell, ring_state.WORD, ring_state.to_fields(state))

    pipeline = Pipeline(layers, settings, tell, tell_ring)
    tokenizer = layers.tokenizer
    template = ChatTemplate(
        tokenizer.chat_template(), special_texts(tokenizer), tokenizer.chat_template("tool_use")
    )
    clock, chance = Clock(), random.SystemRandom()
    chats = ChatReader(template, layers.tokenizer, lambda: "".join(chance.choices(LETTERS, k=32)))
    answering = Answering(settings, layers, pipeline, clock, chance)
    app = HeadApp(settings, layers.tokenizer, chats, pipeline, answering, clock)
    listener = reserve(LOOPBACK, 0, "--port")
    listen(listener)
    if settings.stages:
        ring_door.accept_for_ever(ring_door.listen(Path(settings.socket_path)), pipeline.connect)
    parent.tell("ready", {"url": f"http://{LOOPBACK}:{port_of(listener)}"})
    threading.Thread(target=_run, args=(pipeline,), name="pipeline", daemon=True).start()
    await serve(app.application(), listener)


def _run(pipeline: Pipeline) -> None:
    """A pipeline that ends has met a bug: the process must not outlive it, or everybody would wait."""
    try:
        pipeline.run()
    finally:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(UNUSABLE)


def special_texts(tokenizer: Tokenizer) -> SpecialTexts:
    return SpecialTexts(
        beginning=tokenizer.special_text(tokenizer.beginning),
        end=tokenizer.special_text(tokenizer.end),
        adds_beginning=tokenizer.adds_beginning,
        adds_end=tokenizer.adds_end,
    )


if __name__ == "__main__":
    sys.exit(main())
