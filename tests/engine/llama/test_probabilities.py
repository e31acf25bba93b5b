import numpy as np
import pytest

from mesh_llm.engine.llama.probabilities import of_candidates, of_logits


def test_of_logits_shares_sum_to_one_and_the_likeliest_come_first():
    logits = np.log(np.array([0.1, 0.6, 0.3], np.float32))
    found = of_logits(logits, token=0, count=2)
    assert found.chosen == pytest.approx(0.1)
    assert [token for token, _ in found.likeliest] == [1, 2]
    assert [share for _, share in found.likeliest] == pytest.approx([0.6, 0.3])


def test_more_are_told_than_there_are():
    logits = np.zeros(2, np.float32)
    assert len(of_logits(logits, 0, 9).likeliest) == 2
    assert of_logits(logits, 0, 0).likeliest == ()


def test_what_samplers_have_removed_is_not_told():
    records = np.array(
        [(7, 0.0, 0.0), (5, 1.0, 0.75), (6, 0.5, 0.25)],
        np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)]),
    )
    found = of_candidates(records, token=6, count=3)
    assert (found.chosen, found.likeliest) == (0.25, ((5, 0.75), (6, 0.25)))
    assert of_candidates(records, token=1, count=1).chosen == 1.0
