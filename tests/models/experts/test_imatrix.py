from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest

from mesh_llm.core.errors import ModelDamaged, ModelNotFound, RequestRefused
from mesh_llm.core.experts import ExpertShape
from mesh_llm.models.experts.imatrix import ranking_of_imatrix

SHAPE = ExpertShape(experts=4, used=2, layers=(1, 2))
WIDTH = 3
WIDTHS = {1: WIDTH, 2: WIDTH, 3: WIDTH}
USES = {1: [5, 0, 100, 7], 2: [1, 2, 3, 4]}
ENERGY = {1: [1.0, 0.0, 1.0, 900.0], 2: [1.0, 1.0, 1.0, 1.0]}
"""Mean square of one use."""


def written(
    path: Path,
    uses: Mapping[int, list[float]] = USES,
    *,
    kind: str = "imatrix",
    squares: bool = True,
    dtype: type = np.float32,
) -> Path:
    """As llama-imatrix writes it."""
    writer = gguf.GGUFWriter(path, "none", use_temp_file=False)
    writer.add_type(kind)
    for layer, counts in uses.items():
        name = f"blk.{layer}.ffn_down_exps.weight"
        energy = ENERGY.get(layer, ENERGY[1])
        sums = [[uses * each] * WIDTH for uses, each in zip(counts, energy, strict=False)]
        if squares:
            writer.add_tensor(f"{name}.in_sum2", np.array(sums, dtype))
        writer.add_tensor(f"{name}.counts", np.array(counts, dtype).reshape(-1, 1))
        writer.add_tensor(f"blk.{layer}.attn_q.weight.counts", np.array([[512]], dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_experts_are_ranked_by_uses_and_by_what_goes_into_each(tmp_path: Path):
    ranking = ranking_of_imatrix(written(tmp_path / "a.imatrix.gguf"), SHAPE, WIDTHS)
    assert ranking.by_layer == {1: (3, 2, 0, 1), 2: (3, 2, 1, 0)}
    assert ranking.source == "importance matrix a.imatrix.gguf"


def test_layers_that_only_draft_get_the_list_of_the_last_that_ran(tmp_path: Path):
    shape = ExpertShape(experts=4, used=2, layers=(1, 2, 3))
    ranking = ranking_of_imatrix(written(tmp_path / "a.gguf"), shape, WIDTHS)
    assert ranking.by_layer[3] == ranking.by_layer[2]


def test_the_older_form_is_refused_because_it_counts_no_experts(tmp_path: Path):
    path = tmp_path / "imatrix.dat"
    path.write_bytes(b"\x02\x00\x00\x00\x13\x00\x00\x00blk.0.attn_q.weight")
    with pytest.raises(RequestRefused, match=r"older `.dat` form does not count.*GGUF form"):
        ranking_of_imatrix(path, SHAPE, WIDTHS)


@pytest.mark.parametrize(
    ("uses", "why"),
    [
        ({1: [512], 2: [512]}, "made of a `.dat` file"),
        ({1: [1, 2, 3], 2: [1, 2, 3]}, "counts 3 experts, the model has 4"),
        ({2: [1, 2, 3, 4]}, "nothing of the experts of layer 1"),
        ({}, "nothing of the experts of layer 1"),
        ({1: [1, 2, 3, 4], 2: [1, 2, 3, 4], 3: [1, 2, 3, 4]}, "experts in 3 layers"),
        ({1: [1, 2, 3, float("nan")], 2: [1, 2, 3, 4]}, "impossible"),
        ({1: [1, 2, 3, float("inf")], 2: [1, 2, 3, 4]}, "impossible"),
        ({1: [1, 2, 3, -4], 2: [1, 2, 3, 4]}, "impossible"),
        ({1: [1, 2, 3, 4], 2: [0, 0, 0, 0]}, "no expert of layer 2 was used"),
    ],
)
def test_one_of_another_model_is_refused(tmp_path: Path, uses: Mapping[int, list[float]], why: str):
    with pytest.raises(RequestRefused, match=why):
        ranking_of_imatrix(written(tmp_path / "a.gguf", uses), SHAPE, WIDTHS)


def test_one_of_a_model_with_as_many_experts_of_another_width_is_refused(tmp_path: Path):
    path = written(tmp_path / "a.gguf")
    with pytest.raises(RequestRefused, match=r"layer 2 do not have the model's 4 neurons.*of another model"):
        ranking_of_imatrix(path, SHAPE, WIDTHS | {2: 4})


def test_a_model_is_no_importance_matrix(tmp_path: Path):
    with pytest.raises(RequestRefused, match="no importance matrix"):
        ranking_of_imatrix(written(tmp_path / "a.gguf", kind="model"), SHAPE, WIDTHS)


def test_counts_without_what_went_in_are_refused(tmp_path: Path):
    with pytest.raises(RequestRefused, match="what went into each expert"):
        ranking_of_imatrix(written(tmp_path / "a.gguf", squares=False), SHAPE, WIDTHS)


def test_numbers_of_another_type_are_refused(tmp_path: Path):
    with pytest.raises(RequestRefused, match="bytes of F16"):
        ranking_of_imatrix(written(tmp_path / "a.gguf", dtype=np.float16), SHAPE, WIDTHS)


def test_a_file_that_is_cut_off_or_missing_is_told(tmp_path: Path):
    path = written(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelDamaged, match="cut off"):
        ranking_of_imatrix(path, SHAPE, WIDTHS)
    with pytest.raises(ModelNotFound):
        ranking_of_imatrix(tmp_path / "none.gguf", SHAPE, WIDTHS)
