from dataclasses import replace

import numpy as np
import pytest

from mesh_llm.engine.llama.context import ContextSettings
from tests.engine.llama import computing
from tests.engine.llama.computing import Refused

pytestmark = pytest.mark.real

SMALL = ContextSettings(context=512, batch=32, sequences=4, threads=1)
PROMPT = [1, 19556, 28, 638, 359, 346]


@pytest.fixture(scope="module")
def smollm(smollm2):
    with computing.started() as child:
        child("load", smollm2, SMALL)
        yield child


@pytest.fixture
def child(smollm):
    smollm("memory", "clear")
    return smollm


def of(sequence: int, count: int, first: int = 0) -> tuple[list[int], list[int]]:
    return [sequence] * count, list(range(first, first + count))


def test_a_model_tells_its_measures_and_how_far_it_is_loaded(smollm2):
    with computing.started() as child:
        model = child("load", smollm2, SMALL)
        loaded = model.pop("loaded")
        child("unload")
        assert child("load", smollm2, SMALL)["width"] == model["width"]
    assert loaded == sorted(loaded) and loaded[-1] == 1.0
    assert model == {
        "width": 576,
        "layers": 30,
        "tokens": 49152,
        "window": 0,
        "bytes": 96576768,
        "context_trained": 8192,
        "takes_rows_apart": False,
        "architecture": "llama",
        "nothing": None,
    }


def test_sequences_of_one_batch_do_not_see_each_other(child):
    alone = child("decode", *of(0, 6), tokens=PROMPT)
    child("memory", "clear")
    together = child(
        "decode", [0, 1] * 6, [i // 2 for i in range(12)], tokens=[t for t in PROMPT for _ in "ab"]
    )
    assert np.abs(together[::2] - together[1::2]).max() == 0.0
    assert np.abs(together[::2] - alone).max() < 1.5  # another batch size, other kernels
    assert (together[::2].argmax(axis=1) == alone.argmax(axis=1)).all()


def test_logits_are_given_only_of_rows_that_are_outputs(child):
    outputs = np.array([0, 0, 0, 0, 0, 1], np.int8)
    with pytest.raises(Refused, match="row 0 was not marked"):
        child("decode", *of(0, 6), tokens=PROMPT, outputs=outputs)
    last = child("logits", 5)
    child("memory", "clear")
    assert np.array_equal(child("decode", *of(0, 6), tokens=PROMPT)[5], last)


def test_a_batch_of_too_many_rows_or_none_is_refused(child):
    for count in (0, 33):
        with pytest.raises(Refused, match=f"{count} rows do not go into a batch of 32"):
            child("decode", *of(0, count), tokens=[1] * count)


def test_a_full_cache_is_told_and_changes_nothing(child):
    for first in range(0, 512, 32):
        child("decode", *of(0, 32, first), tokens=[5] * 32)
    with pytest.raises(Refused, match="NoRoom: the KV cache of 512 tokens has no room for 1 more"):
        child("decode", *of(1, 1), tokens=[5])
    assert child("memory", "last_held", 0) == 511
    assert child("memory", "drop", 0, 511)
    child("decode", *of(1, 1), tokens=[5])


def test_what_is_dropped_and_copied_is_as_if_computed(child):
    child("decode", *of(0, 6), tokens=PROMPT)
    child("memory", "copy", 0, 2, 0, 4)
    expected = child("decode", *of(0, 1, 6), tokens=[7])
    child("memory", "drop", 0, 6)
    assert child("memory", "last_held", 0) == 5 and child("memory", "last_held", 2) == 3
    assert np.array_equal(child("decode", *of(0, 1, 6), tokens=[7]), expected)
    held = [child("memory", "first_held", sequence) for sequence in range(3)]
    assert held == [0, -1, 0]


def test_a_sequence_can_go_on_only_where_all_before_is_held(child):
    child("decode", *of(0, 6), tokens=PROMPT)
    can = [child("memory", "can_go_on_at", 0, position) for position in (0, 3, 6, 7)]
    assert can == [True, True, True, False]
    assert not child("memory", "can_go_on_at", 1, 1)


def test_sliding_windows_forget_what_has_left_them(gemma3):
    """Gemma 3 270M looks back 512 tokens in most layers; their cache has room for 512 and one batch."""
    with computing.started() as child:
        settings = ContextSettings(context=2048, batch=128, sequences=1, threads=1, outputs=1)
        assert child("load", gemma3, settings)["window"] == 512
        for first in range(0, 1024, 128):
            child("fill", *of(0, 128, first), tokens=[5] * 128)
        assert child("memory", "can_go_on_at", 0, 1024)
        assert not child("memory", "can_go_on_at", 0, 300)


def test_the_residual_stream_is_given_whole_whatever_is_marked(smollm2):
    with computing.started() as child:
        child(
            "load",
            smollm2,
            ContextSettings(context=512, batch=32, sequences=1, threads=1, residual="l_out-7"),
        )
        rows = child("hidden", *of(0, 6), tokens=PROMPT)
        child("memory", "clear")
        again = child("hidden", *of(0, 6), tokens=PROMPT)
    assert rows.shape == (6, 576) and rows.dtype == np.float32
    assert np.array_equal(rows, again) and np.isfinite(rows).all() and np.ptp(rows) > 1


@pytest.mark.parametrize("to", ["nowhere", "another tensor"])
def test_a_residual_stream_that_has_moved_is_found_again(smollm2, to):
    with computing.started() as child:
        child(
            "load",
            smollm2,
            ContextSettings(context=512, batch=32, sequences=2, threads=1, residual="l_out-7"),
        )
        child("hidden", *of(0, 6), tokens=PROMPT)
        first = child("hidden", *of(0, 3, 6), tokens=PROMPT[:3])
        child("memory", "drop", 0, 6)
        child("mislead", 3, to)
        assert np.array_equal(child("hidden", *of(0, 3, 6), tokens=PROMPT[:3]), first)
        assert child("memory", "last_held", 0) == 8
        child("memory", "drop", 0, 6)
        assert np.array_equal(child("hidden", *of(0, 3, 6), tokens=PROMPT[:3]), first)


def test_a_residual_stream_that_is_none_is_refused(smollm2):
    with computing.started() as child:
        child(
            "load",
            smollm2,
            ContextSettings(context=512, batch=32, sequences=1, threads=1, residual="l_out-99"),
        )
        with pytest.raises(Refused, match="l_out-99 had 0 of 13824 bytes for 6 rows"):
            child("hidden", *of(0, 6), tokens=PROMPT)
        child("load", smollm2, SMALL)
        with pytest.raises(Refused, match="watches no residual"):
            child("hidden", *of(0, 6), tokens=PROMPT)


def test_vectors_may_enter_where_the_model_would_put_its_tokens(smollm2):
    settings = ContextSettings(context=512, batch=32, sequences=1, threads=1, residual="l_out-3")
    vectors = np.random.default_rng(5).standard_normal((6, 576), np.float32)
    with computing.started() as child:
        child("load", smollm2, settings)
        expected = child("hidden", *of(0, 6), hidden=vectors)
        child("load", smollm2, replace(settings, entrance="embd"))
        for _ in range(2):
            assert np.array_equal(child("hidden", *of(0, 6), hidden=vectors), expected)
            child("memory", "clear")


def test_an_entrance_that_is_none_is_refused_before_wrong_logits_are_given(smollm2):
    with computing.started() as child:
        child("load", smollm2, replace(SMALL, entrance="inp_scaled"))
        with pytest.raises(Refused, match="inp_scaled had 0 of 4608 bytes for 2 rows"):
            child("decode", *of(0, 2), hidden=np.ones((2, 576), np.float32))
