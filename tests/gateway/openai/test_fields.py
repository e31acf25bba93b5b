"""Fields that are refused before any engine is asked."""

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.openai.fields import check_numbers


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "hot"), ("top_p", True), ("max_tokens", 1.5), ("seed", "7"), ("top_k", [1])],
)
def test_what_is_no_number_is_refused_with_its_name(field, value):
    with pytest.raises(RequestRefused) as refused:
        check_numbers({field: value})
    assert (refused.value.parameter, refused.value.code) == (field, "invalid_type")


def test_numbers_pass_however_they_are_written():
    check_numbers({"temperature": 1, "top_p": 0.5, "max_tokens": 8.0, "seed": -1, "top_k": None})
