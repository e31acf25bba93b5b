"""Whether the rows of a ring continue what a stage holds: numbers ascend, positions follow each other.

A pure mirror of what the commands and rows so far have put into the KV cache. A stage computes whatever it is
given, so rows out of order would be answered wrongly, never refused, by llama.cpp.
"""

from mesh_llm.engine.ring.frames import Command, FrameError, Operation


class Order:
    """Of one session; begins with an empty cache."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}
        """The position after the last of each sequence that holds any."""
        self._last_number = -1

    def begin(self, number: int) -> None:
        """A step comes. Raises FrameError, as all of these do; after that the session is lost."""
        if number <= self._last_number:
            raise FrameError(f"step {number} came after step {self._last_number}")
        self._last_number = number

    def command(self, command: Command) -> dict[int, int]:
        """Returns the sequences that it has cut back or begun, each with the position at which it goes on."""
        match command.operation:
            case Operation.CLEAR:
                self._next.clear()
                return {}
            case Operation.DROP:
                return self._drop(command)
            case Operation.COPY:
                return self._copy(command)

    def rows(self, sequences: list[int], positions: list[int]) -> None:
        for sequence, position in zip(sequences, positions, strict=True):
            self._row(sequence, position)

    def _row(self, sequence: int, position: int) -> None:
        expected = self._next.get(sequence, 0)
        if position != expected:
            raise FrameError(f"sequence {sequence} came with position {position} instead of {expected}")
        self._next[sequence] = position + 1

    def _drop(self, command: Command) -> dict[int, int]:
        held = self._next.get(command.sequence, 0)
        if command.first >= held:
            return {}  # nothing of it is there
        if -1 < command.end < held:
            raise FrameError(f"{command} would leave a hole: a sequence is dropped to its end")
        self._next[command.sequence] = command.first
        return {command.sequence: command.first}

    def _copy(self, command: Command) -> dict[int, int]:
        if self._next.get(command.target, 0) != command.first or command.target == command.sequence:
            raise FrameError(f"{command} does not continue its target")
        held = self._next.get(command.sequence, 0)
        end = held if command.end == -1 else min(held, command.end)
        goes_on = self._next[command.target] = max(command.first, end)
        return {command.target: goes_on}
