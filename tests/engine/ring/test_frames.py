import contextlib
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mesh_llm.engine.ring.frames import (
    COMMANDS_MAX,
    LENGTH_BYTES,
    STAGES_MAX,
    Broken,
    Command,
    Frame,
    FrameError,
    Hello,
    Operation,
    Shape,
    Step,
    body_length,
    decode,
    encode,
)

SHAPE = Shape(width=12, batch=8, sequences=4, context=256)

microseconds = st.lists(st.integers(0, 2**32 - 1), max_size=STAGES_MAX).map(tuple)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    first = draw(st.integers(0, SHAPE.context))
    end = draw(st.just(-1) | st.integers(first, SHAPE.context))
    sequence = st.integers(0, SHAPE.sequences - 1)
    return Command(draw(st.sampled_from(Operation)), draw(sequence), first, end, draw(sequence))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    rows = draw(st.integers(0, SHAPE.batch))
    width = draw(st.sampled_from([32, 16]))
    kind = np.float32 if width == 32 else np.float16
    finite = st.floats(width=width, allow_nan=False, allow_infinity=False)
    return Step(
        number=draw(st.integers(0, 2**64 - 1)),
        commands=tuple(draw(st.lists(commands(), max_size=5))),
        positions=draw(arrays.arrays(np.int32, rows, elements=st.integers(0, SHAPE.context - 1))),
        sequences=draw(arrays.arrays(np.int32, rows, elements=st.integers(0, SHAPE.sequences - 1))),
        hidden=draw(arrays.arrays(kind, (rows, SHAPE.width), elements=finite)),
        microseconds=draw(microseconds),
    )


hellos = st.builds(
    Hello, st.just(SHAPE), layers=st.lists(st.integers(1, 500), max_size=STAGES_MAX).map(tuple)
)
frames = steps() | hellos | st.builds(Broken, st.text(max_size=1000).filter(str.isprintable))


def a_step(**changes: object) -> Step:
    fields: dict[str, object] = {
        "number": 7,
        "commands": (Command(Operation.DROP, 1, 5),),
        "positions": np.array([3, 4], np.int32),
        "sequences": np.array([0, 2], np.int32),
        "hidden": np.ones((2, SHAPE.width), np.float32),
        "microseconds": (12, 13),
    }
    return Step(**{**fields, **changes})


def passed_on(frame: Frame, shape: Shape = SHAPE) -> Frame:
    encoded = encode(frame)
    assert body_length(encoded[:LENGTH_BYTES], shape) == len(encoded) - LENGTH_BYTES
    return decode(encoded[LENGTH_BYTES:], shape)


def are_equal(one: Frame, other: Frame) -> bool:
    if not (isinstance(one, Step) and isinstance(other, Step)):
        return one == other
    rows = ("positions", "sequences", "hidden")
    return (
        (one.number, one.commands, one.microseconds) == (other.number, other.commands, other.microseconds)
        and all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in rows)
        and one.hidden.dtype == other.hidden.dtype
        and one.hidden.shape == other.hidden.shape
    )


@given(frames)
def test_what_is_encoded_is_decoded_again(frame: Frame):
    assert are_equal(passed_on(frame), frame)


def test_the_largest_step_is_within_the_bound_that_is_held_against_lengths():
    rows = SHAPE.batch
    largest = Step(
        number=1,
        commands=(Command(Operation.CLEAR),) * COMMANDS_MAX,
        positions=np.zeros(rows, np.int32),
        sequences=np.zeros(rows, np.int32),
        hidden=np.zeros((rows, SHAPE.width), np.float32),
        microseconds=(1,) * STAGES_MAX,
    )
    assert len(encode(largest)) - LENGTH_BYTES <= SHAPE.frame_bytes_max
    assert are_equal(passed_on(largest), largest)


def test_hidden_states_are_not_copied_on_their_way_in():
    body = bytearray(encode(a_step())[LENGTH_BYTES:])
    step = decode(body, SHAPE)
    assert isinstance(step, Step) and np.shares_memory(step.hidden, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_numbers_that_are_none_are_refused(number: float, kind: type):
    hidden = np.ones((2, SHAPE.width), kind)
    hidden[1, 3] = number
    with pytest.raises(FrameError, match="finite"):
        passed_on(a_step(hidden=hidden))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positions": np.array([3, 256], np.int32)}, "beyond the context"),
        ({"positions": np.array([-1, 0], np.int32)}, "beyond the context"),
        ({"sequences": np.array([0, 4], np.int32)}, "beyond the 4"),
        ({"sequences": np.array([-1, 0], np.int32)}, "beyond the 4"),
        ({"commands": (Command(Operation.DROP, 4),)}, "out of bounds"),
        ({"commands": (Command(Operation.COPY, 0, 0, -1, -1),)}, "out of bounds"),
        ({"commands": (Command(Operation.DROP, 0, 5, 4),)}, "out of bounds"),
        ({"commands": (Command(Operation.DROP, 0, 0, 257),)}, "out of bounds"),
        ({"commands": (Command(Operation.DROP, 0, -1),)}, "out of bounds"),
        ({"hidden": np.ones((2, SHAPE.width + 1), np.float32)}, "another length"),
        ({"hidden": np.ones((1, SHAPE.width), np.float32)}, "another length"),
        ({"commands": (Command(Operation.CLEAR),) * (COMMANDS_MAX + 1)}, "commands"),
        ({"microseconds": (1,) * (STAGES_MAX + 1)}, "stages"),
    ],
)
def test_a_step_that_does_not_fit_the_ring_is_refused(changes: dict[str, object], reason: str):
    with pytest.raises(FrameError, match=reason):
        passed_on(a_step(**changes))


def test_more_rows_than_a_batch_are_refused():
    rows = SHAPE.batch + 1
    zeros = np.zeros(rows, np.int32)
    step = a_step(positions=zeros, sequences=zeros, hidden=np.zeros((rows, SHAPE.width), np.float32))
    with pytest.raises(FrameError, match="9 rows"):
        passed_on(step)


@pytest.mark.parametrize("name", ["width", "batch", "sequences", "context"])
def test_a_hello_of_another_shape_or_version_is_refused_with_both(name: str):
    measures = {field: getattr(SHAPE, field) for field in ("width", "batch", "sequences", "context")}
    other = Shape(**{**measures, name: 99})
    with pytest.raises(FrameError, match="99"):
        passed_on(Hello(other))
    with pytest.raises(FrameError, match="update"):
        passed_on(Hello(SHAPE, version=2))


def test_a_length_is_refused_before_memory_is_taken_for_it():
    for length in (0, SHAPE.frame_bytes_max + 1, 2**32 - 1):
        with pytest.raises(FrameError, match="a frame of"):
            body_length(struct.pack("<I", length), SHAPE)


def test_no_reason_moves_a_cursor():
    assert passed_on(Broken("red \x1b[31m\nalert\udcff")) == Broken("red  [31m alert ")
    assert passed_on(Broken("x" * 2000)) == Broken("x" * 1000)
    for reason in (b"\x03a\x1b[31m", b"\x03" + b"x" * 1001, b"\x03\xff"):
        with pytest.raises(FrameError, match="a reason"):
            decode(reason, SHAPE)


def test_ten_thousand_altered_frames_are_refused_or_understood():
    chance = random.Random(11549)
    good = [encode(frame)[LENGTH_BYTES:] for frame in (a_step(), Hello(SHAPE, layers=(3, 4)), Broken("no"))]
    outcomes = {"refused": 0, "understood": 0}
    for _ in range(10_000):
        body = altered(bytearray(chance.choice(good)), chance)
        try:
            frame = decode(body, SHAPE)
        except FrameError:
            outcomes["refused"] += 1
        else:
            assert are_equal(passed_on(frame), frame)
            outcomes["understood"] += 1
    assert min(outcomes.values()) > 100


def altered(body: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randrange(1, 4)):
        if not body:
            break
        place = chance.randrange(len(body))
        match chance.randrange(4):
            case 0:
                body[place] ^= 1 << chance.randrange(8)
            case 1:
                del body[place:]
            case 2:
                body[place:place] = chance.randbytes(chance.randrange(1, 40))
            case _:
                body[place : place + 4] = chance.randbytes(4)
    return body


@settings(max_examples=500)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused_or_understood(body: bytes):
    with contextlib.suppress(FrameError):
        decode(body, SHAPE)
