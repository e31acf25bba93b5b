"""A head that holds all layers beside llama-server with the same file: the same answers."""

import json

import pytest

from tests.engine.head.heads import client, kept, lone_head, together, whole_engine

pytestmark = pytest.mark.real

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "Water boils at",
    "List three colours:\n1.",
    "Die Hauptstadt von Deutschland ist",
    "The derivative of x^2 is",
    "In 1969, humans first",
    "Dear Sir or Madam,\n\n",
    "日本の首都は",
)
FRESH = {"cache_prompt": False}
"""What is taken over from a cache was computed beside other rows, which moves logits a little."""
GREEDY = {"temperature": 0, "max_tokens": 24, **FRESH}
CONTEXT = 512


@pytest.fixture(scope="module")
def whole(smollm2):
    with kept(lambda: whole_engine(smollm2, prompt_cache_mib=0, context_length=CONTEXT)) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def head(smollm2):
    with kept(lambda: lone_head(smollm2, context_length=CONTEXT)) as endpoint:
        yield endpoint


@pytest.fixture
async def both(whole, head):
    async with client(whole) as theirs, client(head) as ours:
        yield theirs, ours


def told(answer):
    usage = {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    choice = answer["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return text.removesuffix("\ufffd"), choice["finish_reason"], usage  # half a character, replaced


async def test_greedy_answers_are_the_same(both):
    theirs, ours = both
    for prompt in PROMPTS[::2]:
        expected = told(await theirs.complete(prompt, **GREEDY))
        assert told(await ours.complete(prompt, **GREEDY)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 7},
        {"seed": 8, "temperature": 1.5, "top_k": 0, "top_p": 0.7, "min_p": 0},
        {"seed": 9, "repeat_penalty": 1.3, "repeat_last_n": 32, "temperature": 0.5},
        {"seed": 10, "presence_penalty": 0.8, "frequency_penalty": 0.4},
        {"seed": 11, "typical_p": 0.6, "min_keep": 2},
        {"seed": 12, "xtc_probability": 0.5, "xtc_threshold": 0.05, "top_n_sigma": 1.0},
        {"seed": 13, "dynatemp_range": 0.5, "dynatemp_exponent": 1.2},
        {"seed": 14, "logit_bias": {"28": -100, " the": -5}},
        {"seed": 15, "logit_bias": [[28, False]], "ignore_eos": True},
        {"temperature": 0, "repeat_penalty": 1.5},
        {"seed": 16, "dry_multiplier": 0.8, "dry_base": 1.5, "dry_allowed_length": 1},
        {"temperature": 0, "dry_multiplier": 2, "dry_penalty_last_n": 200, "dry_sequence_breakers": ["é, "]},
        {"seed": 17, "mirostat": 1},
        {"seed": 18, "mirostat": 2, "mirostat_tau": 3, "mirostat_eta": 0.2, "temperature": 1.2},
        {"seed": 19, "samplers": ["top_k", "temperature", "min_p"], "top_k": 9, "temperature": 2},
        {"seed": 20, "samplers": "ptk", "top_p": 0.3},
        {"seed": 21, "samplers": ["top_k", "adaptive_p"], "adaptive_target": 0.3, "adaptive_decay": 0.5},
        {"seed": 22, "samplers": [], "repeat_penalty": 3},
        {"seed": 23, "min_keep": 5, "top_p": 0.01},
    ],
    ids=str,
)
async def test_what_is_drawn_is_the_same_for_the_same_seed(both, fields):
    theirs, ours = both
    asked = {"prompt": PROMPTS[1], "max_tokens": 24, **FRESH, **fields}
    assert told(await ours.complete(**asked)) == told(await theirs.complete(**asked))


@pytest.mark.parametrize("fields", [{}, {"mirostat": 2}, {"n": 2, "temperature": 1.5}], ids=str)
async def test_what_is_drawn_is_drawn_again(both, fields):
    _, ours = both
    asked = {"prompt": PROMPTS[1], "max_tokens": 20, "seed": 7, **FRESH, **fields}
    assert words(await ours.complete(**asked)) == words(await ours.complete(**asked))


def scores(answer, number=float):
    """Of each token: what it said, its own number and those of its rivals."""
    return [
        (
            one["id"],
            one["token"],
            one["bytes"],
            number(score(one)),
            [(other["id"], number(score(other))) for other in rivals(one)],
        )
        for choice in answer["choices"]
        for one in (choice.get("logprobs") or {"content": []})["content"]
    ]


def score(one):
    return one.get("logprob", one.get("prob"))


def near(number):
    return pytest.approx(number, abs=0.02)


def rivals(one):
    return one.get("top_logprobs", one.get("top_probs"))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"logprobs": 3}),
        ("/v1/completions", {"n_probs": 2, "seed": 5, "temperature": 1.2}),
        ("/v1/completions", {"n_probs": 4, "seed": 5, "post_sampling_probs": True, "top_k": 3}),
        ("/v1/completions", {"logprobs": 2, "stop": [" of"], "temperature": 0}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2, "temperature": 0}),
        ("/v1/chat/completions", {"logprobs": True, "temperature": 0, "max_tokens": 3}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 0}),
    ],
    ids=str,
)
async def test_probabilities_are_those_of_llama_server(both, path, fields):
    theirs, ours = both
    asked = {
        "prompt": PROMPTS[9],
        "messages": [{"role": "user", "content": "Say hi."}],
        "max_tokens": 12,
        "seed": 1,
        **FRESH,
        **fields,
    }
    (_, expected), (_, got) = (
        await theirs.post(path, asked),
        await ours.post(path, asked),
    )
    assert told(got) == told(expected)
    assert scores(got) == scores(expected, near)
    theirs_streamed = [event async for event in theirs.events(path, asked)]
    streamed = [event async for event in ours.events(path, asked)]
    assert [scores(event) for event in streamed if scores(event)] == [
        scores(event, near) for event in theirs_streamed if scores(event)
    ]


async def test_choices_and_prompts_are_answered_in_one_request(both):
    _, ours = both
    asked = {"prompt": list(PROMPTS[:2]), "n": 2, "max_tokens": 4, "temperature": 0}
    (_, expected), (_, got) = [await each.post("/v1/completions", asked) for each in both]
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2, 3]
    assert words(got) == words(expected) and len(set(words(got))) == 2
    assert got["usage"]["completion_tokens"] == 16
    tokens = (await ours.post("/tokenize", {"content": PROMPTS[1]}))[1]["tokens"]
    assert got["usage"]["prompt_tokens"] == 5 + len(tokens)


async def test_each_choice_draws_otherwise(both):
    _, ours = both
    asked = {"prompt": PROMPTS[1], "n": 4, "seed": 3, "max_tokens": 20, "temperature": 1.5}
    assert len(set(words(await ours.complete(**asked)))) == 4


def words(answer):
    return [choice["text"] for choice in answer["choices"]]


async def test_choices_of_a_stream_are_told_apart_and_counted_each(both):
    asked = {"messages": [{"role": "user", "content": "Hi"}], "n": 3, "max_tokens": 4, "temperature": 0}
    asked["stream_options"] = {"include_usage": True}
    for each in both:
        events = [event async for event in each.events("/v1/chat/completions", asked)]
        told_by: dict[int, str] = {}
        for choice in (choice for event in events for choice in event["choices"]):
            text = choice["delta"].get("content") or ""
            told_by[choice["index"]] = told_by.get(choice["index"], "") + text
        assert set(told_by) == {0, 1, 2} and len(set(told_by.values())) == 1
        counted = [event["usage"]["completion_tokens"] for event in events if event.get("usage")]
        assert counted == [4, 4, 4]


async def test_mixed_prompts_are_joined_alike(both):
    theirs, ours = both
    tokens = (await ours.post("/tokenize", {"content": " of France"}))[1]["tokens"]
    prompt = ["The capital", *tokens, " is"]
    assert await ours.text(prompt, **GREEDY) == await theirs.text(prompt, **GREEDY)


async def test_time_that_is_over_ends_an_answer_at_the_next_line(both):
    asked = {"prompt": PROMPTS[4], "temperature": 0, "max_tokens": 60, "t_max_predict_ms": 1, **FRESH}
    (_, expected), (_, got) = [await each.post("/v1/completions", asked) for each in both]
    assert told(got)[:2] == told(expected)[:2]
    assert got["choices"][0]["text"].count("\n") < 3


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "fields",
    [
        {"grammar": 'root ::= "yes" | "no"', "temperature": 0},
        {"grammar": "root ::= [a-z]+ [.]", "seed": 2},
        {"grammar": '%llguidance {}\nstart: "[" NUMBER "]"\nNUMBER: /[0-9]{3}/', "temperature": 0},
        {"json_schema": SCHEMA, "seed": 4},
    ],
    ids=str,
)
async def test_answers_keep_to_a_grammar_or_a_schema_as_those_of_llama_server(both, fields):
    theirs, ours = both
    asked = {"prompt": PROMPTS[1], "max_tokens": 40, **FRESH, **fields}
    assert told(await ours.complete(**asked)) == told(await theirs.complete(**asked))


async def test_a_chat_that_must_be_json_is(both):
    _, ours = both
    asked = {
        "messages": [{"role": "user", "content": "Who is the oldest person you know?"}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        "max_tokens": 60,
        "n": 2,
    }
    _, answer = await ours.post("/v1/chat/completions", asked)
    for choice in answer["choices"]:
        person = json.loads(choice["message"]["content"])
        assert set(person) == {"name", "age"} and person["age"] <= 99


@pytest.mark.parametrize(
    "form",
    [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": SCHEMA}}],
    ids=lambda form: form["type"],
)
async def test_json_stands_in_the_fence_that_models_like_and_clients_see_none(both, form):
    asked = {
        "messages": [{"role": "user", "content": "Write one sentence about the sea."}],
        "response_format": form,
        "logprobs": True,
        **GREEDY,
    }
    theirs, ours = [(await one.post("/v1/chat/completions", asked))[1] for one in both]
    (expected,), (got,) = theirs["choices"], ours["choices"]
    assert got["message"]["content"] == expected["message"]["content"]
    assert got["message"]["content"].startswith("{")
    said = [[token["token"] for token in choice["logprobs"]["content"]] for choice in (got, expected)]
    assert said[0] == said[1] and "".join(said[0]).startswith("```json")
    assert ours["usage"]["completion_tokens"] == theirs["usage"]["completion_tokens"] == 24


async def test_what_was_done_is_exposed_to_prometheus(both):
    _, ours = both
    await ours.complete(PROMPTS[0], max_tokens=3)
    async with ours.session.get(ours.endpoint.url + "/metrics") as response:
        text = await response.text()
    values = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
    assert float(values["llamacpp:prompt_tokens_total"]) >= 5
    assert float(values["llamacpp:tokens_predicted_total"]) >= 3
    assert values["llamacpp:requests_processing"] == "0"


async def test_without_a_seed_answers_differ(both):
    _, ours = both
    asked = {"prompt": PROMPTS[1], "max_tokens": 30, "temperature": 1.5}
    assert len({await ours.text(**asked) for _ in range(3)}) > 1


@pytest.mark.parametrize("stop", ["\n", ["people", "Paris"], [" of", "zzz"], "The United", [".\n\nThe Un"]])
async def test_stop_strings_end_an_answer_at_the_same_place(both, stop):
    theirs, ours = both
    asked = {"prompt": PROMPTS[0], "stop": stop, **GREEDY}
    expected = told(await theirs.complete(**asked))
    assert told(await ours.complete(**asked)) == expected
    pieces = [event async for event in ours.events("/v1/completions", asked)]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected[0]
    assert pieces[-1]["choices"][0]["finish_reason"] == expected[1]


async def test_a_chat_is_the_same_whole_and_in_chunks(both):
    theirs, ours = both
    asked = {"messages": [{"role": "user", "content": "Name a fruit and say why."}], **GREEDY}
    status, expected = await theirs.post("/v1/chat/completions", asked)
    assert status == 200
    _, got = await ours.post("/v1/chat/completions", asked)
    assert told(got) == told(expected)
    streamed = asked | {"stream_options": {"include_usage": True}}
    their_events = [event async for event in theirs.events("/v1/chat/completions", streamed)]
    our_events = [event async for event in ours.events("/v1/chat/completions", streamed)]
    assert shapes(our_events) == shapes(their_events)


def shapes(events):
    """Everything but what differs from answer to answer."""
    kept = ("choices", "object")
    return [{name: event[name] for name in kept} | counts(event) for event in events if not is_empty(event)]


def is_empty(event):
    return any(choice["delta"] == {"content": ""} for choice in event["choices"])


def counts(event):
    usage, timings = event.get("usage"), event.get("timings")
    return {
        "usage": usage and (usage["prompt_tokens"], usage["completion_tokens"]),
        "timings": timings and timings["predicted_n"],
    }


async def test_a_stream_without_usage_ends_with_timings(both):
    _, ours = both
    asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "ignore_eos": True}
    events = [event async for event in ours.events("/v1/chat/completions", asked)]
    assert events[-1]["timings"]["predicted_n"] == 3 and events[-1]["choices"][0]["finish_reason"] == "length"


async def test_prompts_of_token_numbers_are_the_same(both):
    theirs, ours = both
    tokens = (await ours.post("/tokenize", {"content": PROMPTS[0], "add_special": True}))[1]["tokens"]
    assert await ours.text(tokens, **GREEDY) == await theirs.text(PROMPTS[0], **GREEDY)
    assert await ours.text([tokens], **GREEDY) == await ours.text(PROMPTS[0], **GREEDY)


async def test_tokens_are_cut_and_joined_alike(both):
    theirs, ours = both
    for text in (*PROMPTS, "<|im_start|>user\nhi<|im_end|>", "👩‍👩‍👧 \x00 ﷽", ""):
        for extra in ({}, {"add_special": True}, {"parse_special": False}):
            asked = {"content": text, **extra}
            cut = await ours.post("/tokenize", asked)
            assert cut == await theirs.post("/tokenize", asked)
            back = {"tokens": cut[1]["tokens"]}
            assert await ours.post("/detokenize", back) == await theirs.post("/detokenize", back)


async def test_a_prompt_beyond_the_context_is_refused_alike(both):
    theirs, ours = both
    asked = {"prompt": [28] * CONTEXT, "max_tokens": 5}
    expected = await theirs.post("/v1/completions", asked)
    assert expected[0] == 400 and expected[1]["error"]["type"] == "exceed_context_size_error"
    assert await ours.post("/v1/completions", asked) == expected


async def test_an_answer_ends_where_the_context_does(both):
    _, ours = both
    answer = await ours.complete([28] * (CONTEXT - 8), max_tokens=100, ignore_eos=True)
    assert told(answer)[1:] == (
        "length",
        {"prompt_tokens": CONTEXT - 8, "completion_tokens": 8, "total_tokens": CONTEXT},
    )


async def test_whoever_hangs_up_is_computed_for_no_longer(both):
    _, ours = both
    long = {"prompt": PROMPTS[1], "max_tokens": 2000, "ignore_eos": True}

    async def begin_and_leave():
        stream = ours.events("/v1/completions", long)
        await anext(stream)
        await stream.aclose()

    await together(*(begin_and_leave() for _ in range(4)))
    answer = await ours.complete(PROMPTS[0], **GREEDY)
    assert answer["timings"]["prompt_ms"] < 5_000, "all four sequences would have been busy for long"


async def test_it_says_what_its_template_can_do(both):
    theirs, ours = both
    (_, expected), (_, got) = await theirs.get("/props"), await ours.get("/props")
    for name in ("chat_template", "bos_token", "eos_token", "model_alias", "total_slots"):
        assert got[name] == expected[name]
    for name in ("supports_system_role", "supports_string_content", "supports_typed_content"):
        assert got["chat_template_caps"][name] == expected["chat_template_caps"][name]
    assert (await ours.get("/v1/models"))[1]["data"][0]["id"] == "test-model"


async def test_no_tokens_are_nothing_but_a_count(both):
    _, ours = both
    answer = told(await ours.complete(PROMPTS[0], max_tokens=0))
    assert answer == ("", "length", {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5})
