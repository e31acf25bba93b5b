import json

from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.gateway.affinity import CONVERSATIONS_MAX, FORGOTTEN_AFTER_S, Affinity, conversation_key

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
def test_any_body_has_a_key_or_none(body):
    key = conversation_key("m", body)
    assert key is None or (len(key) == 16 and key == conversation_key("m", dict(reversed(body.items()))))


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
