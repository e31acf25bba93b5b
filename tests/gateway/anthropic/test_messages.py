import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.anthropic.messages import to_chat


def told(*messages, **fields):
    return to_chat({"messages": list(messages)} | fields)


def test_system_and_settings_take_their_place_in_chat():
    chat = told(
        {"role": "user", "content": "Hi"},
        system=[{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}],
        max_tokens=5,
        stop_sequences=["x"],
        thinking={"type": "enabled", "budget_tokens": 99},
    )
    assert chat["messages"][0] == {"role": "system", "content": "Be\nkind."}
    assert (chat["max_tokens"], chat["stop"], chat["thinking_budget_tokens"]) == (5, ["x"], 99)


def test_blocks_become_turns():
    chat = told(
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And?"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "text", "text": "no"}],
                    "is_error": True,
                },
            ],
        },
    )
    assistant, result, user = chat["messages"]
    assert (assistant["content"], assistant["reasoning_content"]) == ("Let me see.", "hm")
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert result == {"role": "tool", "tool_call_id": "t", "content": "Error: no"}
    assert user == {"role": "user", "content": "And?"}


def test_images_become_urls():
    source = {"type": "base64", "media_type": "image/png", "data": "AAA"}
    chat = told({"role": "user", "content": [{"type": "image", "source": source}]})
    assert chat["messages"][0]["content"][0]["image_url"] == {"url": "data:image/png;base64,AAA"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_tool_choices_are_translated(choice, expected):
    chat = told(tools=[{"name": "f", "input_schema": {"type": "object"}}], tool_choice=choice)
    assert chat["tool_choice"] == expected
    assert chat["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ]


def test_an_output_schema_becomes_a_response_format():
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_format": wanted}, {"output_config": {"format": wanted}}):
        assert told(**fields)["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tool_choice": {"type": "maybe"}},
        {"tool_choice": "any"},
        {"mcp_servers": [{}]},
    ],
)
def test_what_is_not_served_is_refused(wrong):
    with pytest.raises(RequestRefused):
        to_chat({"messages": [{"role": "user", "content": "x"}]} | wrong)


def test_missing_messages_are_refused():
    with pytest.raises(RequestRefused, match="messages"):
        to_chat({})
