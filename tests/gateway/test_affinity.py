import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.affinity import (
    CONVERSATIONS_MAX,
    FORGOTTEN_AFTER_S,
    SESSION_FIELDS,
    SESSION_FORGOTTEN_AFTER_S,
    Affinity,
    check_sessions,
    conversation_key,
    session_key,
)

SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": "Hi"}
MORE = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And now?"}]
TOOLS = [{"type": "function", "function": {"name": "look"}}]


def test_a_conversation_keeps_its_key_while_it_grows_in_every_dialect():
    chat = {"messages": [SYSTEM, HI], "tools": TOOLS}
    assert conversation_key("m", chat) == conversation_key("m", chat | {"messages": [SYSTEM, HI, *MORE]})
    message = {"system": "Be brief.", "messages": [HI], "max_tokens": 9}
    longer = message | {"messages": [HI, *MORE], "max_tokens": 2}
    assert conversation_key("m", message) == conversation_key("m", longer)
    response = {"instructions": "Be brief.", "input": [HI]}
    assert conversation_key("m", response) == conversation_key("m", response | {"input": [HI, *MORE]})
    assert conversation_key("m", {"prompt": "Once"}) == conversation_key("m", {"prompt": "Once", "n": 2})


def test_what_makes_another_conversation_makes_another_key():
    chat = {"messages": [SYSTEM, HI], "tools": TOOLS}
    others = [
        ("m", chat | {"messages": [SYSTEM, {"role": "user", "content": "Ho"}]}),
        ("m", chat | {"messages": [HI]}),
        ("m", chat | {"tools": []}),
        ("n", chat),
        ("m", {"messages": [HI], "system": "Be brief.", "tools": TOOLS}),
        ("m", {"input": "Hi", "instructions": "Be brief."}),
        ("m", {"prompt": "Hi"}),
        ("m", {"prompt": "Ho"}),
    ]
    keys = {conversation_key("m", chat), *(conversation_key(model, body) for model, body in others)}
    assert len(keys) == len(others) + 1


def test_a_request_without_a_first_message_has_no_key():
    for body in ({}, {"messages": [SYSTEM]}, {"messages": 7}, {"messages": [7, None]}, {"prompt": [1, 2]}):
        assert conversation_key("m", body) is None


def test_an_image_and_deep_nesting_cost_little():
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 10_000_000}}
    assert conversation_key("m", {"messages": [{"role": "user", "content": [image]}]})
    deep = json.loads("[" * 900 + "]" * 900)
    assert conversation_key("m", {"messages": [HI], "tools": deep})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


FIELDS = ["messages", "input", "prompt", "system", "tools", "instructions"]


@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_body_has_a_key_or_none(body: dict[str, Any]):
    key = conversation_key("m", body)
    assert key is None or (len(key) == 16 and key == conversation_key("m", dict(reversed(body.items()))))


CHAT: dict[str, Any] = {"messages": [SYSTEM, HI]}
OTHER_CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Something else"}]}
NAMED: list[dict[str, Any]] = [*({name: "ada"} for name in SESSION_FIELDS), {"metadata": {"user_id": "ada"}}]


@pytest.mark.parametrize("named", NAMED, ids=str)
def test_what_a_client_calls_a_session_belongs_together_whatever_is_said_in_it(named: dict[str, Any]):
    key = session_key("m", CHAT | named)
    assert key == session_key("m", OTHER_CHAT | named) == session_key("m", named)
    assert key != session_key("n", CHAT | named)
    assert key != session_key("m", CHAT)
    others = (
        [{name: "bob"} for name in named] if "metadata" not in named else [{"metadata": {"user_id": "b"}}]
    )
    assert all(session_key("m", CHAT | other) != key for other in others)


def test_the_narrower_name_of_a_session_counts():
    said = {"session_id": "1", "prompt_cache_key": "2", "user": "3", "safety_identifier": "4"}
    keys = [session_key("m", said | {"metadata": {"user_id": "5"}})]
    for name in SESSION_FIELDS:
        del said[name]
        keys.append(session_key("m", said | {"metadata": {"user_id": "5"}}))
    assert len(set(keys)) == len(keys) == 5
    assert keys[1] == session_key("m", {"prompt_cache_key": "2"})


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("name", [*SESSION_FIELDS, "metadata"])
def test_without_a_name_the_conversation_is_the_session(name: str, nothing: str | None):
    body = CHAT | {name: nothing if name != "metadata" else {"user_id": nothing}}
    check_sessions(body)
    assert session_key("m", body) == session_key("m", CHAT) == conversation_key("m", CHAT)
    assert session_key("m", {name: nothing}) is None


@pytest.mark.parametrize("said", [7, 0, True, False, 1.5, [], ["ada"], {}, {"id": "ada"}], ids=str)
def test_a_name_that_is_no_string_is_refused_and_never_a_key(said: object):
    for name in SESSION_FIELDS:
        with pytest.raises(RequestRefused, match=f"`{name}` must be a string"):
            check_sessions({name: said})
        assert session_key("m", CHAT | {name: said}) == conversation_key("m", CHAT)
    with pytest.raises(RequestRefused, match=r"`metadata\.user_id` must be a string"):
        check_sessions({"metadata": {"user_id": said}})
    check_sessions({"metadata": said if said != {"id": "ada"} else 7})  # others' metadata are their business


def test_names_in_any_script_and_of_any_length_are_told_apart():
    names = [
        "ada",
        "Ada",
        "ada ",
        "\N{SNOWMAN}",
        "e\u0301",
        "\u00e9",
        "\ud800",
        "\0",
        "x" * 10_000_000,
        "x" * 5000,
    ]
    keys = {session_key("m", {"user": name}) for name in names}
    assert len(keys) == len(names) and all(key is not None and len(key) == 16 for key in keys)


@given(st.dictionaries(st.sampled_from([*FIELDS, *SESSION_FIELDS, "metadata"]), values))
def test_any_body_has_a_session_or_none(body: dict[str, Any]):
    key = session_key("m", body)
    assert key is None or len(key) == 16


def test_a_session_that_sticks_is_remembered_for_a_day():
    affinity = Affinity()
    affinity.remember(b"c", "one", 0)
    assert affinity.favourite(b"c", FORGOTTEN_AFTER_S + 1) is None
    assert affinity.favourite(b"c", SESSION_FORGOTTEN_AFTER_S, sticks=True) == "one"
    assert affinity.favourite(b"c", SESSION_FORGOTTEN_AFTER_S + 1, sticks=True) is None


def test_the_last_server_is_remembered_for_a_while():
    affinity = Affinity()
    assert affinity.favourite(b"c", 0) is None
    affinity.remember(b"c", "one", 0)
    affinity.remember(b"c", "two", 10)
    assert affinity.favourite(b"c", 10 + FORGOTTEN_AFTER_S) == "two"
    assert affinity.favourite(b"c", 11 + FORGOTTEN_AFTER_S) is None
    affinity.remember(None, "one", 0)
    assert affinity.favourite(None, 0) is None


def test_the_least_recently_continued_is_forgotten_first():
    affinity = Affinity()
    for number in range(CONVERSATIONS_MAX):
        affinity.remember(b"%d" % number, "x", 0)
    affinity.remember(b"0", "x", 1)
    affinity.remember(b"new", "x", 1)
    assert affinity.favourite(b"0", 1) == "x"
    assert affinity.favourite(b"1", 1) is None
