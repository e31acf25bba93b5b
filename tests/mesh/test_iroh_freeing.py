import asyncio
import gc
import threading
from collections.abc import Callable

import pytest
from iroh import iroh_ffi

from mesh_llm.mesh.iroh_freeing import LateFreeing
from mesh_llm.mesh.iroh_transport import IrohTransport
from mesh_llm.mesh.transport import NoRelays
from mesh_llm.runtime.clock import Clock

Freed = list[tuple[str, bool]]
"""In which thread, and whether in the midst of `busy_with`."""


class Midst:
    now = False


def thing_that_tells(freed: Freed) -> type:
    class Thing:
        other: object = None

        def __del__(self) -> None:
            freed.append((threading.current_thread().name, Midst.now))

    return Thing


def busy_with(work: Callable[[], object]) -> None:
    Midst.now = True
    work()
    Midst.now = False


@pytest.fixture
def freed() -> Freed:
    return []


@pytest.fixture
def thing(freed: Freed) -> type:
    return thing_that_tells(freed)


async def test_what_dies_in_another_thread_is_freed_in_the_loops(freed: Freed, thing: type):
    freeing = LateFreeing()
    freeing.mend({"Thing": thing, "VERSION": 3})
    freeing.use_this_loop()
    held = [thing()]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert freed == []
    await asyncio.sleep(0)
    assert freed == [("MainThread", False)]


async def test_what_the_garbage_collector_finds_is_freed_later_and_once(freed: Freed, thing: type):
    freeing = LateFreeing()
    freeing.mend({"Thing": thing})
    freeing.use_this_loop()
    one, other = thing(), thing()
    one.other, other.other = other, one
    del one, other
    busy_with(gc.collect)
    assert freed == []
    await asyncio.sleep(0)
    assert freed == [("MainThread", False)] * 2
    gc.collect()
    await asyncio.sleep(0)
    assert len(freed) == 2


def test_what_dies_after_its_loop_is_freed_by_the_next(freed: Freed, thing: type):
    freeing = LateFreeing()
    freeing.mend({"Thing": thing})

    async def live() -> None:
        freeing.use_this_loop()

    asyncio.run(live())
    for _ in range(3):
        busy_with(thing)
    assert freed == []
    asyncio.run(live())
    assert freed == [("MainThread", False)] * 3


async def test_every_class_of_iroh_that_frees_something_is_mended():
    key = bytes(31) + b"\7"
    async with IrohTransport.open(key, relays=NoRelays(), clock=Clock(), fast_path=False):
        freeing = [
            each for each in vars(iroh_ffi).values() if isinstance(each, type) and "__del__" in vars(each)
        ]
    assert len(freeing) > 10
    assert {kind.__del__.__module__ for kind in freeing} == {"mesh_llm.mesh.iroh_freeing"}
