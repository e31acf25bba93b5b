"""One life of the ring as a stage sees it: frames in and frames out of one connection, until it ends.

One thread reads, computes and writes in turn: handing frames to another would cost each step more than all
else here does. It may wait for the next stage to read, and that one for its next, but never in a circle: at
the end of the ring stands the head, which reads whatever it does besides.
"""

import contextlib
import socket

from mesh_llm.engine.ring.frames import Broken, Frame, FrameError, Hello
from mesh_llm.engine.ring.sockets import FrameSocket
from mesh_llm.engine.stage.computing import Stage, StageBroken

FAREWELL_S = 1.0
"""For telling the next stage why the session ends; it may not be reading."""


class Session:
    def __init__(self, connection: socket.socket, stage: Stage) -> None:
        self._connection = connection
        self._stage = stage
        self._frames = FrameSocket(connection, stage.shape)

    def run(self) -> str | None:
        """Until it ends; says why, None where the other side ended it. The connection is closed then."""
        try:
            return self._serve()
        finally:
            self._frames.close()

    def _serve(self) -> str | None:
        """OSError: a side of the ring is gone, and nobody is left to be told."""
        try:
            self._follow()
        except (FrameError, StageBroken) as error:
            self._say_farewell(str(error))
            return str(error)
        except OSError as error:
            return f"the connection broke: {error}"
        return None

    def _follow(self) -> None:
        """Frames in their order, to the end of the stream."""
        self._stage.begin()
        is_greeted = False
        while (frame := self._frames.read()) is not None:
            self._frames.write(self._answer(frame, is_greeted))
            is_greeted = True

    def _answer(self, frame: Frame, is_greeted: bool) -> Frame:
        match frame:
            case Broken():
                raise StageBroken(frame.reason)
            case Hello() if is_greeted:
                raise FrameError("a second hello")
            case Hello():
                return self._stage.greet(frame)
            case _ if not is_greeted:
                raise FrameError("a step before the hello")
            case _:
                return self._stage.compute(frame)

    def _say_farewell(self, reason: str) -> None:
        self._connection.settimeout(FAREWELL_S)
        with contextlib.suppress(OSError):
            self._frames.write(Broken(reason))
