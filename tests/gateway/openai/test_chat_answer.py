from mesh_llm.gateway.openai.chat_answer import ChatAnswer


def a_chunk(delta, index=0, reason=None, **choice):
    return {
        "id": "c",
        "created": 5,
        "choices": [{"index": index, "delta": delta, "finish_reason": reason, **choice}],
    }


def test_a_stream_folds_into_one_answer():
    answer = ChatAnswer("m")
    for chunk in (
        a_chunk({"role": "assistant", "content": None}),
        a_chunk({"reasoning_content": "hm"}),
        a_chunk({"content": "He"}, logprobs={"content": [{"token": "He"}]}),
        a_chunk({"content": "llo"}, logprobs={"content": [{"token": "llo"}]}),
        a_chunk({"content": "Other"}, index=1),
        a_chunk({}, index=1, reason="length"),
        a_chunk({}, reason="stop"),
        {"id": "c", "choices": [], "usage": {"total_tokens": 3}, "timings": {"prompt_n": 1}},
    ):
        answer.feed(chunk)
    whole = answer.answer()
    first, second = whole["choices"]
    assert first["message"] == {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    assert [score["token"] for score in first["logprobs"]["content"]] == ["He", "llo"]
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "length")
    assert second["logprobs"] is None
    assert (whole["object"], whole["model"], whole["created"]) == ("chat.completion", "m", 5)
    assert whole["usage"] == {"total_tokens": 3} and whole["timings"]


def test_pieces_of_several_calls_are_joined_by_their_index():
    answer = ChatAnswer("m")
    for index, piece in (
        (0, {"id": "a", "function": {"name": "walk", "arguments": "{"}}),
        (1, {"id": "b", "function": {"name": "run", "arguments": ""}}),
        (0, {"function": {"arguments": "}"}}),
        (1, {"function": {"arguments": "{}"}}),
    ):
        answer.feed(a_chunk({"tool_calls": [{"index": index, **piece}]}))
    message = answer.answer()["choices"][0]["message"]
    assert message["content"] is None
    assert [(call["id"], call["function"]) for call in message["tool_calls"]] == [
        ("a", {"name": "walk", "arguments": "{}"}),
        ("b", {"name": "run", "arguments": "{}"}),
    ]
