"""In which ranges bytes are asked for: all that is wanted, in order, few questions, hardly a byte beside."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.models.stages.composition import Copy, FileLayout
from mesh_llm.models.stages.readings import GAP_BYTES_MAX, PIECE_BYTES, WASTE_MAX, readings


def layout_of(stretches: list[tuple[int, int, int]]) -> FileLayout:
    """`stretches`: part, bytes that are left out before, and bytes that are taken."""
    copies, target, ends = list[Copy](), 0, {0: 0, 1: 0}
    for part, gap, length in stretches:
        copies.append(Copy(target, part, ends[part] + gap, length))
        ends[part] += gap + length
        target += length
    return FileLayout((), tuple(copies), target, target)


LAYOUTS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2 * GAP_BYTES_MAX), st.integers(1, 3 * PIECE_BYTES)),
    min_size=1,
    max_size=40,
).map(layout_of)


@settings(deadline=None)
@given(LAYOUTS, st.floats(0, 1))
def test_everything_above_the_mark_is_read_once_and_in_order(layout: FileLayout, share: float) -> None:
    mark = int(share * layout.bytes)
    at = mark
    for reading in readings(layout, mark):
        assert 0 < reading.length <= PIECE_BYTES
        for piece in reading.copies:
            assert piece.target == at and piece.part == reading.part
            assert reading.offset <= piece.offset
            assert piece.offset + piece.length <= reading.offset + reading.length
            (copy,) = (each for each in layout.copies if each.target <= at < each.target + each.length)
            assert piece.offset - piece.target == copy.offset - copy.target
            at += piece.length
        assert reading.end == at
    assert at == layout.bytes


@settings(deadline=None)
@given(LAYOUTS)
def test_no_more_is_wasted_than_may_be(layout: FileLayout) -> None:
    fetched = sum(reading.length for reading in readings(layout, 0))
    assert layout.bytes <= fetched <= (1 + WASTE_MAX) * layout.bytes


def test_rows_that_lie_near_each_other_are_asked_for_as_one() -> None:
    rows = [(0, 4, 4)] * 100
    assert len(list(readings(layout_of([(0, 0, PIECE_BYTES), *rows]), 0))) == 2


def test_rows_with_wide_gaps_are_asked_for_one_by_one() -> None:
    rows = [(0, 900_000, 900_000)] * 5
    assert [reading.length for reading in readings(layout_of(rows), 0)] == [900_000] * 5


def test_neighbours_of_two_parts_are_never_one() -> None:
    assert len(list(readings(layout_of([(0, 0, 10), (1, 10, 10)]), 0))) == 2
