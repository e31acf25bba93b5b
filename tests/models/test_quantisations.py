import pytest

from mesh_llm.models.quantisations import FileSet, choose, file_sets, is_model, is_projector, quantisation_of


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-3b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Q4_K_M/m-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("Mixtral-8x22B-Instruct-v0.1.Q4_K_M-00001-of-00002.gguf", "Q4_K_M"),
        ("Meta-Llama-3.1-405B-Instruct.Q2_K.gguf-00001-of-00009.gguf", "Q2_K"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-IQ4_XS.gguf", "IQ4_XS"),
        ("m-BF16.gguf", "BF16"),
        ("m-f16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Qwen3-8B.gguf", None),
        ("EQ4-model.gguf", None),
    ],
)
def test_the_quantisation_is_read_from_the_name(path: str, label: str | None) -> None:
    assert quantisation_of(path) == label


def test_whole_models_are_told_from_what_lies_beside_them() -> None:
    paths = [
        "a-Q4_K_M.gguf",
        "mmproj-F16.gguf",
        "imatrix_unsloth.gguf",
        "README.md",
        *(f"b-Q8_0-{n:05d}-of-00002.gguf" for n in (1, 2)),
        "c-Q8_0-00001-of-00002.gguf",
    ]
    assert [each.parts[0] for each in file_sets(paths)] == ["a-Q4_K_M.gguf", "b-Q8_0-00001-of-00002.gguf"]
    assert [path for path in paths if is_projector(path)] == ["mmproj-F16.gguf"]
    assert not is_model("model-00001-of-00002.safetensors")


def test_of_the_same_model_whole_and_split_the_whole_file_is_taken() -> None:
    sets = file_sets(["m-q4_k_m.gguf", "m-q4_k_m-00001-of-00002.gguf", "m-q4_k_m-00002-of-00002.gguf"])
    assert choose(sets, "Q4_K_M", "org/repo") == FileSet(("m-q4_k_m.gguf",), "Q4_K_M")


def test_a_quantisation_nobody_knows_is_better_than_none() -> None:
    sets = file_sets(["m-strange.gguf"])
    assert choose(sets, None, "org/repo").parts == ("m-strange.gguf",)
