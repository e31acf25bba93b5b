"""One fault of a stream, where several tasks that used it have failed together.

A stream that breaks while one task sends and another receives fails both in the same moment: their group
would pass every handler that waits for `Unreachable`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

from mesh_llm.mesh.transport import PeerError, Refused, Unreachable


@contextmanager
def one_fault() -> Generator[None]:
    """Around a task group: raises PeerError where anybody found a lie, else Unreachable or Refused."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _worst(group) from group


def _worst(group: BaseExceptionGroup) -> BaseException:
    """A bug is raised with all that came along."""
    expected, bugs = group.split((PeerError, Refused, Unreachable))
    if bugs is not None or expected is None:
        return group
    for kind in (PeerError, Refused):
        some = expected.subgroup(kind)
        if some is not None:
            return kind(str(first_of(some)))
    return Unreachable(str(first_of(expected)))


def first_of(error: BaseException) -> BaseException:
    """Of a group, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("tuple[BaseException, ...]", error.exceptions)[0]
    return error
