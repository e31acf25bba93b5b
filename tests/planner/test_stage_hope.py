from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.planner.split_plan import Measure, Plan, Wait
from mesh_llm.planner.stage_hope import ACQUAINTED_SECONDS, ALONE_SECONDS, StageHope

NONE = Wait(1, "They are too far from each other.")
UNKNOWN = Measure((), "Not known yet.")


def test_hope_is_lost_once_no_stages_were_possible_for_so_long():
    hope = StageHope()
    assert not hope.is_lost(NONE, 100, knows_others=False)
    assert not hope.is_lost(NONE, 100 + ALONE_SECONDS - 0.1, knows_others=False)
    assert hope.is_lost(NONE, 100 + ALONE_SECONDS, knows_others=False)


def test_who_knows_others_waits_longer_for_them():
    hope = StageHope()
    assert not hope.is_lost(NONE, 0, knows_others=True)
    assert not hope.is_lost(NONE, ACQUAINTED_SECONDS - 0.1, knows_others=True)
    assert hope.is_lost(NONE, ACQUAINTED_SECONDS, knows_others=True)


looks = st.lists(st.tuples(st.floats(0, 20), st.sampled_from((NONE, UNKNOWN, None)), st.booleans()))


@given(looks)
def test_hope_is_lost_only_while_every_plan_of_that_time_was_to_wait(
    drawn: list[tuple[float, Plan | None, bool]],
):
    hope, now, waits = StageHope(), 0.0, float("inf")
    for seconds, plan, knows_others in drawn:
        now += seconds
        lost = hope.is_lost(plan, now, knows_others=knows_others)
        waits = min(waits, now) if isinstance(plan, Wait) else float("inf")
        assert lost == (now - waits >= (ACQUAINTED_SECONDS if knows_others else ALONE_SECONDS))
