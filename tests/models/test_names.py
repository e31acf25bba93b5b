import pytest

from mesh_llm.models.names import fitting, none_fits, several_fit

NAMES = [
    "Qwen3-8B-Q4_K_M",
    "Qwen3-80B-Q4_K_M",
    "Qwen3.5-8B",
    "Mistral-Small-3.1-24B",
    "Llama-24B",
    "Qwen3-VL-8B",
]


def test_words_in_one_run_win_over_words_with_others_between() -> None:
    assert fitting("qwen3-8b", NAMES) == ("Qwen3-8B-Q4_K_M",)


def test_words_with_others_between_are_found_when_nothing_is_closer() -> None:
    assert fitting("mistral 24b", NAMES) == ("Mistral-Small-3.1-24B",)


@pytest.mark.parametrize("wanted", ["8", "qwen", "", "---", "8b-qwen3"])
def test_half_a_word_or_another_order_fits_nothing(wanted: str) -> None:
    assert fitting(wanted, NAMES) == ()


def test_a_version_is_one_word() -> None:
    assert fitting("Qwen3.5", NAMES) == ("Qwen3.5-8B",)


def test_names_that_equal_but_for_case_and_separators_win_over_longer_ones() -> None:
    assert fitting("llama_24b", ["Llama-24B-Instruct", "Llama-24B"]) == ("Llama-24B",)


def test_several_that_fit_are_listed_before_those_with_the_same_letters() -> None:
    refusal = several_fit("24b", ["Llama-24B"], ["Big-124B", *NAMES])
    assert "several models: Llama-24B, Big-124B, Mistral-Small-3.1-24B. Give the full" in str(refusal)


def test_a_long_list_is_cut_and_says_so() -> None:
    many = [f"Qwen-{number}" for number in range(20)]
    assert "Qwen-7 and 12 more." in str(several_fit("qwen", many, many))


def test_an_unknown_name_is_answered_with_the_nearest_and_what_else_may_be_given() -> None:
    refusal = none_fits("Qwen3-8B-Q5_K_M", NAMES)
    assert "Nearest: Qwen3-8B-Q4_K_M" in str(refusal) and "org/repo:Q4_K_M" in str(refusal)
    assert refusal.http_status == 404
