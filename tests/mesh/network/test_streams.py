from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.network.frames import data_frame
from mesh_llm.mesh.network.streams import READ_BYTES, READ_BYTES_AT_FIRST, FramedStream

PEER = NodeId("a" * 64)


class FullPipe:
    """Gives as much as is asked for, and remembers how much that was."""

    def __init__(self, theirs: bytes) -> None:
        self._theirs = theirs
        self.asked: list[int] = []

    async def read(self, size: int) -> bytes:
        self.asked.append(size)
        piece, self._theirs = self._theirs[:size], self._theirs[size:]
        return piece

    async def write(self, data: bytes) -> None:
        raise AssertionError("nothing is sent here")

    async def finish(self) -> None: ...

    async def abort(self) -> None: ...

    async def done(self, rest: bytes) -> None: ...


async def test_a_stream_asks_for_little_until_it_brings_bulk():
    small, bulk = b"hello", bytes(2 * READ_BYTES)
    pipe = FullPipe(data_frame(small))
    stream = FramedStream(pipe, PEER)
    assert await stream.receive() == small
    assert pipe.asked == [READ_BYTES_AT_FIRST]
    pipe = FullPipe(data_frame(bulk))
    stream = FramedStream(pipe, PEER)
    assert await stream.receive() == bulk
    assert pipe.asked == [READ_BYTES_AT_FIRST] + [READ_BYTES] * 2
