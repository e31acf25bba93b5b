"""The sums themselves; `test_calibrating.py` has them of real graphs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.experts.saliency import Saliency, best_first

ORDER = np.array([[2, 0, 1], [0, 1, 2]], np.int32)
"""Of two tokens; two of three experts are used."""
OUTPUTS = np.array([[3, 4], [0, 1], [6, 8], [0, 0]], np.float32)


def tensor(name: str, values: np.ndarray) -> Any:
    return SimpleNamespace(name=name, integers=lambda: values, floats=lambda: values)


def passed(saliency: Saliency, layer: int, outputs: np.ndarray = OUTPUTS, name: str = "weighted") -> bool:
    saliency.see(tensor(f"ffn_moe_argsort-{layer}", ORDER))
    return saliency.see(tensor(f"ffn_moe_{name}-{layer}", outputs))


def test_each_expert_gets_the_norms_of_what_it_added():
    saliency = Saliency("qwen3moe", [0, 3], 3)
    saliency.begin(2)
    assert passed(saliency, 0) and passed(saliency, 3)
    saliency.check()
    measured = saliency.measured()
    assert measured["reap"] == {"0": [11.0, 0.0, 5.0], "3": [11.0, 0.0, 5.0]}
    assert measured["uses"] == {"0": [2, 1, 1], "3": [2, 1, 1]}


def test_once_the_last_layer_is_known_the_graph_ends_there():
    saliency = Saliency("qwen3moe", [0, 1, 2], 3)
    for _ in range(2):
        saliency.begin(2)
        goes_on = [passed(saliency, layer) for layer in (0, 1)]
        saliency.check()
    assert goes_on == [True, False]
    assert set(saliency.measured()["reap"]) == {"0", "1"}  # layer 2 only drafts


@pytest.mark.parametrize("layers", [[], [1], [0, 2]])
def test_a_layer_that_does_not_come_by_is_told(layers: list[int]):
    saliency = Saliency("qwen3moe", [0, 1, 2], 3)
    saliency.begin(2)
    for layer in layers:
        passed(saliency, layer)
    with pytest.raises(EngineFailed, match="Name an importance matrix"):
        saliency.check()


def test_a_layer_that_stops_coming_by_is_told():
    saliency = Saliency("qwen3moe", [0, 1], 3)
    saliency.begin(2)
    passed(saliency, 0), passed(saliency, 1)
    saliency.check()
    saliency.begin(2)
    passed(saliency, 0)
    with pytest.raises(EngineFailed, match=r"layers \[0\]"):
        saliency.check()


def test_tensors_of_fewer_rows_than_tokens_are_told():
    saliency = Saliency("qwen3moe", [0], 3)
    saliency.begin(3)
    passed(saliency, 0)
    with pytest.raises(EngineFailed, match="of 3 tokens"):
        saliency.check()


def test_outputs_that_are_no_numbers_are_told():
    saliency = Saliency("qwen3moe", [0], 3)
    saliency.begin(2)
    passed(saliency, 0, OUTPUTS * np.float32("nan"))
    saliency.check()
    with pytest.raises(EngineFailed, match="no numbers"):
        saliency.measured()


def test_where_weights_come_before_the_experts_their_own_output_is_taken():
    llama4, others = Saliency("llama4", [0], 3), Saliency("qwen3moe", [0], 3)
    assert llama4.is_wanted("ffn_moe_down-0") and not llama4.is_wanted("ffn_moe_weighted-0")
    assert others.is_wanted("ffn_moe_weighted-0") and not others.is_wanted("ffn_moe_down-0")


@pytest.mark.parametrize(
    "name", ["ffn_moe_argsort-1", "ffn_moe_argsort", "ffn_moe_topk-0", "", "-0", "l_out-0"]
)
def test_nothing_else_is_wanted(name: str):
    assert not Saliency("qwen3moe", [0], 3).is_wanted(name)


def test_of_equal_experts_the_first_is_better():
    assert best_first([1.0, 3.0, 1.0, 0.0, 3.0]) == (1, 4, 0, 2, 3)
