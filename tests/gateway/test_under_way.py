import asyncio

from mesh_llm.gateway.under_way import UnderWay


async def test_who_waits_for_none_waits_for_the_last():
    under_way = UnderWay()
    await under_way.wait_for_none()
    async with asyncio.TaskGroup() as tasks:
        with under_way.one_more():
            with under_way.one_more():
                waiting = tasks.create_task(under_way.wait_for_none())
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waiting.done()
        async with asyncio.timeout(5):
            await waiting
