import asyncio

from mesh_llm.runtime.bell import Bell
from mesh_llm.runtime.draining import drained
from mesh_llm.runtime.tasks import beside


async def test_where_nothing_is_under_way_there_is_no_wait():
    async with asyncio.timeout(30):
        assert await drained(lambda: 0, Bell(), 3600) == 0


async def test_it_ends_with_the_last_that_was_under_way():
    under_way, changes = [2, 1], Bell()

    async def finish() -> None:
        while under_way:
            await asyncio.sleep(0)
            under_way.pop()
            changes.ring()

    async with asyncio.timeout(30), beside(finish=finish()):
        assert await drained(lambda: len(under_way), changes, 3600) == 0


async def test_what_does_not_end_is_counted_after_the_bound():
    async with asyncio.timeout(30):
        assert await drained(lambda: 2, Bell(), 0.01) == 2
