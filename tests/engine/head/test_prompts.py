import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.prompts import read_prompts

BEGINNING = 1
TOKENS = 300


def cut(text: str, add_special: bool) -> list[int]:
    """A token is a character's number."""
    return [BEGINNING] * add_special + [ord(character) % TOKENS for character in text]


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("ab", [[1, 97, 98]]),
        ([7, 8], [[7, 8]]),
        (["a", "b"], [[1, 97], [1, 98]]),
        ([[7], "a", ["b", 9]], [[7], [1, 97], [1, 98, 9]]),
        ([7, "a"], [[7, 97]]),
        (["a", 7, "b"], [[1, 97, 7, 98]]),
        ([[]], [[]]),
    ],
)
def test_a_prompt_is_a_text_or_tokens_or_both_and_there_may_be_several(value, prompts):
    assert read_prompts(value, TOKENS, cut) == prompts


@pytest.mark.parametrize(
    "value", [None, 7, True, {}, [], [None], [True], [[True]], [7, None], [300], [[-1]], ["x"] * 257]
)
def test_what_is_no_prompt_is_refused(value):
    with pytest.raises(RequestRefused):
        read_prompts(value, TOKENS, cut)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
        lambda children: st.lists(children, max_size=4),
        max_leaves=8,
    )
)
def test_prompts_of_strangers_are_read_or_refused(value):
    with contextlib.suppress(RequestRefused):
        for prompt in read_prompts(value, TOKENS, cut):
            assert all(0 <= token < TOKENS for token in prompt)
