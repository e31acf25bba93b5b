import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.requests import SEEDS, biases_in, read_fields, read_object, sampling_of
from mesh_llm.engine.head.unserved import COMPLETION_FIELDS, FIELDS, refuse_unserved
from mesh_llm.engine.llama.sampling import NEVER, USUAL_ORDER, Sampling


def sampling(**fields):
    return sampling_of(read_fields(fields), seed=5, biases=())


def test_what_is_not_said_is_llama_servers_default():
    assert sampling() == Sampling(seed=5)
    assert sampling(temperature=None, top_k=None, seed=None) == Sampling(seed=5)


def test_numbers_out_of_range_are_brought_into_it():
    asked = sampling(temperature=-1, top_p=7, min_p=-3, top_k=-1)
    assert (asked.temperature, asked.top_p, asked.min_p, asked.top_k) == (0.0, 1.0, 0.0, 0)


@pytest.mark.parametrize(
    ("seed", "used"), [(-1, 5), (0, 0), (SEEDS - 1, SEEDS - 1), (SEEDS, 0), (2**40, 2**40 % SEEDS)]
)
def test_no_seed_is_the_word_for_a_drawn_one(seed, used):
    assert sampling(seed=seed).seed == used


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 8, "n_predict": 9}, 9),
        ({"n_predict": 0}, 0),
    ],
)
def test_the_length_has_three_names(fields, tokens):
    assert read_fields(fields).tokens_max == tokens


def test_biases_come_in_two_forms_and_false_bans():
    assert biases_in(read_fields({"logit_bias": {"5": -1, " the": False}})) == [(5, -1.0), (" the", NEVER)]
    assert biases_in(read_fields({"logit_bias": [[5, 2.5], ["x", False]]})) == [(5, 2.5), ("x", NEVER)]


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        (None, USUAL_ORDER),
        ([], ()),
        ("kpt", ("top_k", "top_p", "temperature")),
        ("k?t", ("top_k", "temperature")),
        (["Top-K", "nucleus", "minp", "unheard-of", "temp"], ("top_k", "top_p", "min_p", "temperature")),
        (["dry", "adaptive_p"], ("dry", "adaptive_p")),
    ],
)
def test_samplers_come_in_the_order_that_is_asked_for_and_under_all_their_names(asked, order):
    assert sampling(samplers=asked).order == order


@pytest.mark.parametrize(
    ("fields", "is_chat", "rivals"),
    [
        ({}, True, 0),
        ({"logprobs": True}, True, 20),
        ({"logprobs": True, "top_logprobs": 3}, True, 3),
        ({"logprobs": False, "n_probs": 4}, True, 4),
        ({"logprobs": 5}, False, 5),
        ({"logprobs": True}, False, 1),
        ({"logprobs": 5, "n_probs": 2}, False, 2),
    ],
)
def test_probabilities_are_asked_for_in_two_dialects(fields, is_chat, rivals):
    assert read_fields(fields).rivals(is_chat=is_chat) == rivals


@pytest.mark.parametrize(
    "fields",
    [
        {"n_probs": 1001},
        {"logprobs": -1},
        {"dry_sequence_breakers": []},
        {"dry_sequence_breakers": ["x"] * 33},
        {"samplers": "k" * 33},
        {"adaptive_decay": 1.0},
        {"dry_allowed_length": -1},
    ],
)
def test_what_has_hard_bounds_is_refused_beyond_them(fields):
    (name,) = fields
    with pytest.raises(RequestRefused, match=name):
        read_fields(fields)


@pytest.mark.parametrize("name", [*FIELDS, *COMPLETION_FIELDS])
def test_what_is_not_served_is_refused_by_name_and_nothing_else(name):
    refuse_unserved({name: None})
    with pytest.raises(RequestRefused, match=f"`{name}`"):
        refuse_unserved({name: {"type": "json_object"}})


def test_what_clients_send_that_fill_every_field_is_no_question():
    refuse_unserved({"tools": [], "best_of": 1, "echo": False, "response_format": {"type": "text"}})
    refuse_unserved({"tools": [{}], "echo": True}, is_chat=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["temperature", "seed", "stop", "logit_bias", "top_k", "n_predict", "stream"]),
        json_values,
    )
)
def test_fields_of_strangers_are_read_or_refused(body):
    try:
        fields = read_fields(body)
    except RequestRefused:
        return
    assert 0 <= sampling_of(fields, 1, ()).seed < SEEDS
    biases_in(fields)


@given(st.binary(max_size=60))
def test_bodies_of_strangers_are_read_or_refused(body):
    with contextlib.suppress(RequestRefused):
        assert isinstance(read_object(body), dict)


@given(json_values)
def test_whatever_is_not_served_is_told_apart_without_falling(value):
    for name in FIELDS | COMPLETION_FIELDS:
        with contextlib.suppress(RequestRefused):
            refuse_unserved({name: value})
