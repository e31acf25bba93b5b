import json

from mesh_llm.core.errors import EngineFailed
from mesh_llm.gateway.openai.responses_answer import ResponsesWriter
from mesh_llm.gateway.sse import EventReader


def a_writer():
    numbers = iter(range(100))
    return ResponsesWriter({"metadata": {"a": "b"}}, "m", lambda prefix: f"{prefix}{next(numbers)}", 5)


def told(writer, deltas, reason="stop", end=True):
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if end:
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    written = b"".join(writer.feed({"choices": [choice]}) for choice in choices)
    written += writer.finish() if end else b""
    return [json.loads(event.data) for event in EventReader().feed(written)]


def test_thoughts_words_and_calls_are_items_one_after_the_other():
    writer = a_writer()
    events = told(
        writer,
        [
            {"reasoning_content": "h"},
            {"reasoning_content": "m"},
            {"content": "We"},
            {"content": "ll"},
            {"tool_calls": [{"index": 0, "id": "c0", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
            {"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "g", "arguments": "{}"}}]},
        ],
    )
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    reasoning, message, first, second = writer.answer()["output"]
    assert reasoning["content"][0]["text"] == "hm"
    assert message["content"][0]["text"] == "Well"
    assert (first["name"], first["call_id"], first["arguments"]) == ("f", "c0", "{}")
    assert (second["name"], second["call_id"], second["arguments"]) == ("g", "c1", "{}")
    assert all(item["status"] == "completed" for item in writer.answer()["output"])
    places = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    assert places == [0, 1, 2, 3]
    for event in events:
        if "delta" in event:
            assert "output_index" in event and "item_id" in event


def test_every_item_is_opened_filled_and_closed():
    events = [event["type"].removeprefix("response.") for event in told(a_writer(), [{"content": "a"}])]
    assert events == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_an_answer_cut_short_is_incomplete():
    writer = a_writer()
    events = told(writer, [{"content": "a"}], reason="length")
    assert events[-1]["type"] == "response.incomplete"
    assert writer.answer()["incomplete_details"] == {"reason": "max_output_tokens"}
    assert writer.answer()["output"][0]["status"] == "incomplete"
    assert writer.answer()["metadata"] == {"a": "b"}


def test_an_empty_answer_is_complete():
    writer = a_writer()
    assert told(writer, [])[-1]["type"] == "response.completed"
    assert writer.answer()["output"] == []


def test_a_failure_is_told_as_error_and_as_failed_response():
    writer = a_writer()
    before = told(writer, [{"content": "a"}], end=False)
    error, failed = (json.loads(e.data) for e in EventReader().feed(writer.failure(EngineFailed("gone"))))
    assert error == {
        "type": "error",
        "sequence_number": len(before),
        "code": "engine_failed",
        "message": "gone",
        "param": None,
    }
    assert failed["response"]["status"] == "failed"
