import asyncio

from mesh_llm.runtime.bell import Bell


async def test_a_ring_wakes_all_who_wait_and_nobody_who_comes_later():
    bell = Bell()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(bell.wait_for_ring()) for _ in range(3)]
        await asyncio.sleep(0)
        bell.ring()
        late = tasks.create_task(bell.wait_for_ring())
        await asyncio.wait(waiting)
        assert not late.done()
        late.cancel()
