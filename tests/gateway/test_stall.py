import asyncio

import pytest

from mesh_llm.gateway.stall import StallWatch


async def test_one_write_that_takes_too_long_is_a_stall():
    stall = StallWatch()
    stall.begins()
    with pytest.raises(ConnectionResetError, match="takes nothing"):
        async with asyncio.timeout(5):
            await stall.watch(0.01)


async def test_silence_is_none():
    stall = StallWatch()
    stall.begins()
    stall.ends()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stall.watch(0.01)
