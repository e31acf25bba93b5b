from mesh_llm.gateway.openai.tool_history import as_plain_messages, with_instructions

CALLS = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": [
        {"id": "1", "function": {"name": "walk", "arguments": '{"to": "Rome"}'}},
        {"id": "2", "function": {"name": "run", "arguments": ""}},
    ],
}


def a_result(call, content):
    return {"role": "tool", "tool_call_id": call, "content": content}


def test_calls_become_what_the_model_would_have_written():
    (message,) = as_plain_messages([CALLS])
    assert message["role"] == "assistant"
    assert message["content"].splitlines() == [
        "Let me see.",
        '{"name": "walk", "arguments": {"to": "Rome"}}',
        '{"name": "run", "arguments": {}}',
    ]
    assert "tool_calls" not in message


def test_results_and_the_next_question_become_one_turn_of_the_user():
    question = {"role": "user", "content": "And now?"}
    result = a_result("2", [{"type": "text", "text": "done"}])
    _, told = as_plain_messages([CALLS, a_result("1", "there"), result, question])
    assert told == {"role": "user", "content": "Result of walk: there\n\nResult of run: done\n\nAnd now?"}


def test_a_result_of_nobodys_call_is_still_told():
    assert as_plain_messages([a_result("9", "x")])[0]["content"] == "Result of the tool: x"


def test_plain_conversations_stay_as_they_are():
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
    ]
    assert as_plain_messages(messages) == messages


def test_instructions_join_content_in_parts():
    parts = [{"type": "text", "text": "old"}]
    (message,) = with_instructions([{"role": "system", "content": parts}], "new", system_role=True)
    assert [part["text"] for part in message["content"]] == ["new\n\n", "old"]
