import json

from mesh_llm.gateway.anthropic.messages_answer import MessagesWriter
from mesh_llm.gateway.sse import EventReader

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}


def told(writer, deltas, reason="stop", **last):
    chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": reason}]} | last)
    chunks.append({"choices": [], "usage": USAGE})
    written = b"".join(map(writer.feed, chunks)) + writer.finish()
    return [json.loads(event.data) for event in EventReader().feed(written)]


def a_writer():
    return MessagesWriter("m", lambda prefix: f"{prefix}1")


def test_thoughts_words_and_tool_uses_are_blocks_one_after_the_other():
    writer = a_writer()
    events = told(
        writer,
        [
            {"reasoning_content": "hm"},
            {"content": "We"},
            {"content": "ll"},
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
            {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]},
        ],
        reason="tool_calls",
    )
    message = writer.answer()
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Well"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}},
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["input_tokens"] == 7
    assert message["usage"]["cache_read_input_tokens"] == 2
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    stops = [event["index"] for event in events if event["type"] == "content_block_stop"]
    assert starts == stops == [0, 1, 2, 3]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]


def test_a_stop_sequence_is_named():
    writer = a_writer()
    told(writer, [{"content": "a"}], __verbose={"stopping_word": "###"})
    assert (writer.answer()["stop_reason"], writer.answer()["stop_sequence"]) == ("stop_sequence", "###")


def test_arguments_cut_short_leave_an_empty_input():
    writer = a_writer()
    told(
        writer,
        [{"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"x'}}]}],
        reason="length",
    )
    assert writer.answer()["content"][0]["input"] == {}
    assert writer.answer()["stop_reason"] == "max_tokens"


def test_the_prompts_length_is_known_at_the_start():
    writer = a_writer()
    written = writer.feed(
        {"choices": [{"delta": {"role": "assistant"}}], "prompt_progress": {"total": 9, "cache": 2}}
    )
    (start,) = EventReader().feed(written)
    assert json.loads(start.data)["message"]["usage"]["input_tokens"] == 7


def test_an_empty_answer_is_a_whole_message():
    assert [event["type"] for event in told(a_writer(), [])] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
