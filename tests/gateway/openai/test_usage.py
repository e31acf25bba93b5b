from mesh_llm.gateway.exchange import Usage
from mesh_llm.gateway.openai.usage import UsageMender


def report(prompt, completion, index=None):
    choices = [] if index is None else [{"index": index, "text": ""}]
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    return {"id": "x", "choices": choices, "usage": usage, "timings": {"prompt_n": prompt}}


def test_choices_of_one_prompt_count_it_once():
    usage = Usage()
    mender = UsageMender(usage, choices_per_prompt=3, tell=True)
    assert [mender.feed(report(7, tokens)) for tokens in (2, 3, 4)] == [[], [], []]
    (chunk,) = mender.finish()
    assert chunk["usage"]["prompt_tokens"] == 7
    assert chunk["usage"]["completion_tokens"] == 9
    assert chunk["usage"]["total_tokens"] == 16
    assert chunk["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
    assert "timings" not in chunk


def test_prompts_are_told_apart_by_their_choices():
    usage = Usage()
    mender = UsageMender(usage, choices_per_prompt=2, tell=True)
    for index, prompt in ((2, 5), (0, 7), (1, 7), (3, 5)):
        (kept,) = mender.feed(report(prompt, 1, index))
        assert kept["choices"] and "usage" not in kept
    assert (usage.prompt_tokens, usage.completion_tokens) == (12, 4)


def test_nothing_is_told_that_was_not_asked_but_all_is_counted():
    usage = Usage()
    mender = UsageMender(usage, choices_per_prompt=1, tell=False)
    mender.feed(report(7, 2))
    assert mender.finish() == []
    assert usage.prompt_tokens == 7
