import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.ring.frames import Command, FrameError, Operation
from mesh_llm.engine.stage.order import Order

DROP, COPY, CLEAR = Operation.DROP, Operation.COPY, Operation.CLEAR


class Steps:
    """Steps with ascending numbers, into an Order."""

    def __init__(self) -> None:
        self.order = Order()
        self.number = 0

    def __call__(self, *rows: tuple[int, int], commands: tuple[Command, ...] = ()) -> None:
        """Each row is a sequence and a position."""
        self.number += 1
        self.order.begin(self.number)
        for command in commands:
            self.order.command(command)
        self.order.rows([sequence for sequence, _ in rows], [position for _, position in rows])


@pytest.fixture
def step() -> Steps:
    return Steps()


def test_sequences_go_on_where_they_are_each_for_itself(step):
    step((0, 0), (0, 1), (3, 0))
    step((3, 1), (0, 2), (3, 2))


@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_row_that_does_not_continue_its_sequence_is_refused(step, position):
    step((1, 0), (1, 1))
    with pytest.raises(FrameError, match=f"sequence 1 came with position {position} instead of 2"):
        step((1, position))


def test_a_row_that_comes_twice_in_one_step_is_refused(step):
    with pytest.raises(FrameError, match="instead of 1"):
        step((0, 0), (0, 0))


def test_numbers_ascend(step):
    step()
    step.number = 0
    with pytest.raises(FrameError, match="came after step 1"):
        step()


def test_a_dropped_sequence_begins_anew_and_a_cut_one_goes_on_there(step):
    step((0, 0), (0, 1), (1, 0), (1, 1))
    step((0, 0), (1, 1), commands=(Command(DROP, 0), Command(DROP, 1, 1)))


def test_dropping_what_is_not_there_changes_nothing(step):
    step((0, 0), commands=(Command(DROP, 0), Command(DROP, 1, 5)))
    step((0, 1), commands=(Command(DROP, 0, 1, 9),))


def test_a_hole_is_refused(step):
    step((0, 0), (0, 1), (0, 2))
    with pytest.raises(FrameError, match="hole"):
        step(commands=(Command(DROP, 0, 0, 2),))


def test_a_copy_gives_its_target_what_its_source_holds(step):
    step(*((0, position) for position in range(5)))
    step((1, 5), (2, 3), commands=(Command(COPY, 0, 0, -1, 1), Command(COPY, 0, 0, 3, 2)))


@pytest.mark.parametrize(
    "command", [Command(COPY, 0, 1, -1, 1), Command(COPY, 0, 0, -1, 2), Command(COPY, 0, 2)]
)
def test_a_copy_that_does_not_continue_its_target_is_refused(step, command):
    step((0, 0), (0, 1), (2, 0))
    with pytest.raises(FrameError, match="continue its target"):
        step(commands=(command,))


def test_it_says_where_a_sequence_goes_on_that_was_cut_or_begun(step):
    step((0, 0), (0, 1), (0, 2))
    order = step.order
    assert order.command(Command(COPY, 0, 0, 2, 1)) == {1: 2}
    assert order.command(Command(DROP, 0, 1)) == {0: 1}
    assert order.command(Command(DROP, 3)) == {} == order.command(Command(CLEAR))


def test_clearing_begins_all_anew(step):
    step((0, 0), (1, 0))
    step((0, 0), (1, 0), commands=(Command(CLEAR),))


@given(st.lists(st.tuples(st.sampled_from("DCX"), *[st.integers(0, 5)] * 4), max_size=20))
def test_it_agrees_with_a_cache_of_cells(moves: list[tuple[str, int, int, int, int]]):
    """The cells are a plain model of llama.cpp's unified cache: what passes has no holes and no twins."""
    step, cells = Steps(), dict[int, list[int]]()
    for kind, sequence, first, end, target in moves:
        held = cells.setdefault(sequence, [])
        command = Command({"D": DROP, "C": COPY, "X": CLEAR}[kind], sequence, first, end, target)
        row = (sequence, len(held))
        try:
            step(commands=(command,))
        except FrameError:
            return
        if kind == "D":
            cells[sequence] = [p for p in held if not first <= p < end]
        elif kind == "C":
            cells.setdefault(target, []).extend(p for p in held if first <= p < end)
        else:
            cells.clear()
        assert all(positions == list(range(len(positions))) for positions in cells.values())
        row = (sequence, len(cells.setdefault(sequence, [])))
        step(row)
        cells[sequence].append(row[1])
