"""One life of the ring as a stage sees it: frames in and frames out of one connection, until it ends.

A thread reads ahead, so that two neighbours that write to each other never wait for each other; how far is
bounded, and the head bounds the steps under way besides.
"""

import contextlib
import queue
import socket
import threading

from mesh_llm.engine.ring.frames import Broken, Frame, FrameError, Hello
from mesh_llm.engine.ring.sockets import FrameSocket
from mesh_llm.engine.stage.computing import Stage, StageBroken

FRAMES_AHEAD = 8
"""That are read before they are computed. A step for each of as many stages may be under way; each frame is
at most `Shape.frame_bytes_max`."""

FAREWELL_S = 1.0
"""For telling the next stage why the session ends; it may not be reading."""


class Session:
    def __init__(self, connection: socket.socket, stage: Stage) -> None:
        self._connection = connection
        self._stage = stage
        self._frames = FrameSocket(connection, stage.shape)
        self._arrived: queue.SimpleQueue[Frame | Exception | None] = queue.SimpleQueue()
        self._rooms = threading.Semaphore(FRAMES_AHEAD)
        self._is_over = False

    def run(self) -> str | None:
        """Until it ends; says why, None where the other side ended it. The connection is closed then."""
        reader = threading.Thread(target=self._read_ahead, name="reader of the ring")
        reader.start()
        try:
            return self._serve()
        finally:
            self._is_over = True
            self._frames.end()
            self._rooms.release()
            reader.join()
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
        while (frame := self._next_frame()) is not None:
            match frame:
                case Broken():
                    raise StageBroken(frame.reason)
                case Hello() if not is_greeted:
                    is_greeted = True
                    self._frames.write(self._stage.greet(frame))
                case Hello():
                    raise FrameError("a second hello")
                case _ if not is_greeted:
                    raise FrameError("a step before the hello")
                case _:
                    self._frames.write(self._stage.compute(frame))

    def _next_frame(self) -> Frame | None:
        arrived = self._arrived.get()
        self._rooms.release()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def _read_ahead(self) -> None:
        """Whatever ends it is the last that `_next_frame` hears."""
        end: Exception | None = None
        try:
            while self._rooms.acquire() and not self._is_over and (frame := self._frames.read()) is not None:
                self._arrived.put(frame)
        except (FrameError, OSError) as error:
            end = error
        finally:
            self._arrived.put(end)

    def _say_farewell(self, reason: str) -> None:
        self._connection.settimeout(FAREWELL_S)
        with contextlib.suppress(OSError):
            self._frames.write(Broken(reason))
