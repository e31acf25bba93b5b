import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.gateway.openai.responses import to_chat


def test_instructions_and_input_become_messages():
    body = {
        "instructions": "Be brief.",
        "input": "Hi",
        "max_output_tokens": 5,
        "reasoning": {"effort": "low"},
    }
    assert to_chat(body) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "reasoning_effort": "low",
    }


def test_a_conversation_with_calls_is_retold():
    image = {"type": "input_image", "image_url": "data:x"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, image]},
        {"type": "reasoning", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "y"}]},
    ]
    user, assistant, first, second = to_chat({"input": items})["messages"]
    assert user["content"][1] == {"type": "image_url", "image_url": {"url": "data:x"}}
    assert assistant["content"] == "b"
    assert [call["function"]["name"] for call in assistant["tool_calls"]] == ["f", "g"]
    assert (first["tool_call_id"], first["content"]) == ("1", "x")
    assert (second["tool_call_id"], second["content"]) == ("2", "y")


def test_formats_and_tools_take_their_place_in_chat():
    body = {
        "input": "x",
        "text": {
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
        },
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f"}],
        },
        "include": ["message.output_text.logprobs"],
    }
    chat = to_chat(body)
    assert chat["response_format"]["json_schema"] == {
        "name": "n",
        "strict": True,
        "schema": {"type": "object"},
    }
    assert chat["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert chat["tool_choice"]["allowed_tools"]["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert chat["logprobs"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"conversation": "c"},
        {"background": True},
        {"truncation": "auto"},
        {"text": {"format": {"type": "yaml"}}},
        {"tool_choice": {"type": "file_search"}},
        {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
        {"input": [{"role": "user", "content": 7}]},
        {"input": None},
    ],
)
def test_what_is_not_served_is_refused(wrong):
    with pytest.raises(RequestRefused):
        to_chat({"input": "x"} | wrong)


def test_logprobs_are_not_asked_for_unasked():
    assert "logprobs" not in to_chat(
        {"input": "x", "top_logprobs": 0, "truncation": "disabled", "store": True}
    )
