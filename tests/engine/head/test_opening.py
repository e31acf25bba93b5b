from dataclasses import replace

import numpy as np
import pytest

from mesh_llm.engine.head.opening import Opened, Opening, choose_activations
from mesh_llm.engine.ring.frames import Broken, FrameError, Hello, Operation, Shape, Step

SHAPE = Shape(width=4, batch=8, sequences=2, context=64)


class Laps:
    """A ring whose laps take as long as the test says."""

    def __init__(self, choice=None, stages: int = 2) -> None:
        self.sent: list = []
        batch = np.ones((8, 4), np.float32)
        self.opening = Opening(SHAPE, stages, choice, batch, head_seconds=0.1, send=self.sent.append)
        self.now = 0.0
        self.opening.begin()

    def home(self, seconds: float, **changes):
        frame = self.sent[-1]
        self.now += seconds
        if isinstance(frame, Hello):
            return self.opening.take(replace(frame, layers=(10, 11), **changes), self.now)
        return self.opening.take(replace(frame, **{"microseconds": (50_000, 60_000), **changes}), self.now)


def test_a_ring_is_greeted_measured_cleared_and_then_open():
    laps = Laps()
    assert laps.sent == [Hello(SHAPE)]
    assert [laps.home(0.02), laps.home(0.02), laps.home(0.14)] == [None, None, None]
    assert [len(step.positions) for step in laps.sent[1:]] == [0, 8, 0]
    assert [command.operation for command in laps.sent[-1].commands] == [Operation.CLEAR]
    assert laps.home(0.03) == Opened((10, 11), "f32", 0.02, (50_000, 60_000), steps=3)


def test_numbers_of_steps_ascend_from_the_first():
    laps = Laps()
    for _ in range(3):
        laps.home(0.01)
    assert [step.number for step in laps.sent[1:]] == [0, 1, 2]


@pytest.mark.parametrize(("batch_seconds", "chosen"), [(0.14, "f32"), (0.16, "f16")])
def test_half_precision_is_chosen_where_the_way_is_a_tenth_of_a_lap(batch_seconds, chosen):
    laps = Laps()
    for seconds in (0.02, 0.02, batch_seconds):
        laps.home(seconds)
    opened = laps.home(0.02)
    assert opened is not None and opened.activations == chosen


def test_a_choice_that_was_made_is_kept():
    assert choose_activations("f32", transfer_seconds=9, lap_seconds=10) == "f32"
    assert choose_activations("f16", transfer_seconds=0, lap_seconds=10) == "f16"


@pytest.mark.parametrize(
    ("laps_before", "frame", "says"),
    [
        (0, Hello(SHAPE, layers=(3,)), "has 1 stages, the plan 2"),
        (0, Hello(replace(SHAPE, width=5), layers=(1, 2)), "did not send"),
        (0, Broken("stage 2 has no memory"), "stage 2 has no memory"),
        (1, Hello(SHAPE, layers=(1, 2)), "did not send"),
        (2, Broken("gone"), "gone"),
    ],
)
def test_what_the_head_did_not_send_ends_the_ring(laps_before, frame, says):
    laps = Laps()
    for _ in range(laps_before):
        laps.home(0.01)
    with pytest.raises(FrameError, match=says):
        laps.opening.take(frame, 1.0)


@pytest.mark.parametrize(
    "changes",
    [{"number": 5}, {"positions": np.zeros(3, np.int32)}, {"microseconds": (1,)}],
)
def test_a_step_that_was_changed_on_its_way_ends_the_ring(changes):
    laps = Laps()
    laps.home(0.01)
    with pytest.raises(FrameError):
        laps.home(0.01, **changes)


def test_a_step_before_the_greeting_ends_the_ring():
    nothing = np.zeros(0, np.int32)
    step = Step(0, (), nothing, nothing, np.zeros((0, 4), np.float32), (1, 2))
    with pytest.raises(FrameError, match="did not send"):
        Laps().opening.take(step, 1.0)
