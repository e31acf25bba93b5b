"""A child that dies with its parent, whatever kills the parent and whatever the child is busy with.

The parent holds the other end of the child's standard input and never writes to it after the first line.
When the parent ends, even by SIGKILL, the kernel closes that pipe. A thread of the child could not act on it:
the engine holds the interpreter's lock for the whole of a model's load, minutes for a large one. So a forked
watcher waits for the end of the pipe and kills the child. It works alike on Linux and macOS.
"""

import os
import signal

STDIN, STDOUT, STDERR = 0, 1, 2


def hold() -> None:
    """Tie this process to the end of its standard input. Call once, before any thread is started.

    The watcher costs one sleeping process and ends when the pipe does: the parent closes it once the child
    is gone.
    """
    guarded = os.getpid()
    if os.fork() != 0:
        return
    # A request to stop goes to the child alone, also when a terminal or a service manager asks all of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, STDOUT)
    os.dup2(devnull, STDERR)
    _close_inherited()
    while os.read(STDIN, 4096):
        pass
    if os.getppid() == guarded:  # else the child is gone already, and its number may be another's
        os.kill(guarded, signal.SIGKILL)
    os._exit(0)


def _close_inherited() -> None:
    """Let go of every pipe but standard input, so that the parent sees the child's own end."""
    os.closerange(3, 256)
