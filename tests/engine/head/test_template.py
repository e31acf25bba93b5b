from datetime import datetime

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.conversation import read_conversation
from mesh_llm.engine.head.messages import read_messages
from mesh_llm.engine.head.sandbox import TemplateRefused
from mesh_llm.engine.head.template import ChatTemplate, SpecialTexts

NOW = datetime(2026, 3, 9, 12, 30)
SPECIAL = SpecialTexts("<s>", "</s>", adds_beginning=True, adds_end=False)
HELLO = [{"role": "user", "content": "hello"}]


def prompt(source, messages=HELLO, **fields):
    conversation = read_conversation({"messages": messages} | fields)
    return ChatTemplate(source, SPECIAL).for_(conversation).prompt(conversation, NOW)


def rendered(source, messages=HELLO, **fields):
    return prompt(source, messages, **fields).text


def test_without_a_template_it_is_chatml():
    template = ChatTemplate(None, SPECIAL)
    assert template.is_fallback
    assert rendered(None) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert rendered("chatml") == rendered(None)


def test_blocks_are_trimmed_as_hugging_face_does():
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}"
    assert rendered(source) == "hello\n"


def test_the_beginning_that_tokenising_adds_is_left_out():
    assert rendered("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}") == "hello</s>"


def test_time_is_the_one_handed_in():
    assert rendered("{{ strftime_now('%Y-%m-%d') }} {{ date_string }}") == "2026-03-09 09 Mar 2026"


def test_json_is_not_escaped_for_html():
    assert rendered("{{ messages | tojson }}") == '[{"role": "user", "content": "hello"}]'
    assert rendered("{{ '<é>' | tojson }}") == '"<é>"'


def test_what_the_template_refuses_is_told_in_its_own_words():
    source = "{% if messages[0].role != 'user' %}{{ raise_exception('users first') }}{% endif %}"
    assert rendered(source) == ""
    with pytest.raises(TemplateRefused, match="users first"):
        rendered(source, [{"role": "tooth", "content": "x"}])


def test_a_broken_template_says_so_instead_of_answering():
    template = ChatTemplate("{% for message in messages %}", SPECIAL)
    assert template.broken is not None and "endfor" in template.broken
    with pytest.raises(TemplateRefused, match="broken"):
        template.prompt(read_conversation({"messages": HELLO}), NOW)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'a' * 999999999 }}",
        "{{ 9 ** 99999999 }}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{{ range(999999999) | list }}",
        "{% set ns = namespace(x='a') %}{% for a in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}"
        "{% for a in range(9) %}{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}"
        "{% for a in range(9) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
        "{{ ('a' * 60000).join(['b'] * 60000) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'a' | center(999999999) }}",
    ],
)
def test_what_a_template_must_not_do_ends_in_a_refusal(source):
    with pytest.raises(TemplateRefused):
        rendered(source)


def test_parts_are_joined_for_a_template_that_wants_text():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts}]
    assert rendered("{{ messages[0]['content'] }}", messages) == "one\ntwo"
    assert rendered("{{ messages[0]['content'] | trim }}", messages) == "one\ntwo"
    assert (
        rendered("{% for part in messages[0].content %}{{ part.text }}|{% endfor %}", messages) == "one|two|"
    )


def test_a_text_becomes_a_part_for_a_template_that_wants_parts():
    assert rendered("{% for part in messages[0].content %}{{ part['text'] }}{% endfor %}") == "hello"


def test_a_system_message_goes_into_the_next_where_the_template_knows_none():
    source = (
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ message.content }}]{% endfor %}"
    )
    messages = [{"role": "system", "content": "be kind"}, *HELLO]
    assert rendered(source, messages) == "[be kind\nhello]"


def test_developers_are_systems_but_for_those_that_know_them():
    messages = [{"role": "developer", "content": "x"}]
    assert rendered("{{ messages[0].role }}{{ messages[0].content }}", messages) == "systemx"
    assert rendered("<|channel|>{{ messages[0].role }}{{ messages[0].content }}", messages).endswith(
        "developerx"
    )


def test_an_answer_goes_on_from_a_last_message_of_the_assistant():
    messages = [*HELLO, {"role": "assistant", "content": "Well, "}]
    assert rendered(None, messages).endswith("<|im_start|>assistant\nWell, ")
    with pytest.raises(RequestRefused, match="2 or more assistant"):
        rendered(None, [*messages, {"role": "assistant", "content": "x"}])


def test_a_request_may_hand_variables_to_the_template():
    assert rendered("{{ enable_thinking }}") == "False"
    thinking = "{% if enable_thinking and add_generation_prompt %}<think>{% endif %}"
    assert prompt(thinking).text == "<think>" and prompt(thinking).thinking_is_open
    assert rendered(thinking, chat_template_kwargs={"enable_thinking": False}) == ""
    assert rendered(thinking, reasoning_effort="none") == ""
    assert rendered("{{ mood }}", chat_template_kwargs={"mood": "gay"}) == "gay"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("hello", "array"),
        (["hello"], "object"),
        ([{"content": "x"}], "role"),
        ([{"role": "user"}], "content"),
        ([{"role": "user", "content": 7}], "string or an array"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "only text"),
        ([{"role": "user", "content": [{"type": "text"}]}], "text"),
        ([{"role": "user", "content": "x", "name": 7}], "name"),
    ],
)
def test_messages_that_are_none_are_refused_by_name(messages, says):
    with pytest.raises(RequestRefused, match=says):
        read_messages(messages)


def test_what_is_nothing_adds_nothing_and_has_no_fields():
    source = "[{{ messages[0].nothing.more }}{{ 'a' + none }}{{ none ~ 'b' }}{{ nothing + 'c' }}{{ none }}]"
    assert rendered(source) == "[abc]"
    assert rendered("{% for x in nothing %}{{ x }}{% endfor %}{{ 'a' in nothing }}") == "False"
    assert rendered("{{ tools is defined }}{{ add_generation_prompt is defined }}") == "FalseTrue"


def test_numbers_have_six_digits_in_json_as_llama_cpp_writes_them():
    assert rendered("{{ {'a': 1.0, 'b': 0.12345678, 'c': 3} | tojson }}") == '{"a": 1, "b": 0.123457, "c": 3}'


def test_another_template_may_be_for_tools():
    template = ChatTemplate("plain", SPECIAL, "with tools")
    plain, tooled = ({"messages": HELLO} | more for more in ({}, {"tools": [TOOL]}))
    texts = [
        template.for_(asked).prompt(asked, NOW).text for asked in map(read_conversation, (plain, tooled))
    ]
    assert texts == ["plain", "with tools"]


TOOL = {"type": "function", "function": {"name": "look", "strict": True}}


def test_tools_come_in_the_one_form_that_llama_server_gives_them():
    assert rendered("{{ tools | tojson }}", tools=[TOOL]) == (
        '[{"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}]'
    )
    assert rendered("{{ tools | length }}", tools=[TOOL], tool_choice="none") == "1"


CALL = {"type": "function", "id": "1", "function": {"name": "look", "arguments": '{"at": 1}'}}
CALLED = [*HELLO, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "x"}]


def test_arguments_are_values_for_templates_that_look_into_them():
    loop = "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    looks_in = "{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    assert rendered(loop + looks_in, CALLED) == '{"at": 1}'
    as_text = "{{ c.function.arguments + '' }}{% endfor %}{% endfor %}"
    assert rendered(loop + as_text, CALLED) == '{"at": 1}'
    broken = [CALLED[1] | {"tool_calls": [{**CALL, "function": {"name": "look", "arguments": "{"}}]}]
    with pytest.raises(RequestRefused, match="arguments as JSON"):
        rendered(loop + looks_in, [*HELLO, *broken, *HELLO])


THINKING = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_an_answer_that_goes_on_has_its_thoughts_between_their_marks():
    begun = prompt(THINKING, [*HELLO, {"role": "assistant", "content": "Well, ", "reasoning_content": "hm"}])
    assert begun.text == "<user>hello<assistant><think>\nhm\n</think>\n\nWell, "
    assert begun.content_is_open and not begun.thinking_is_open
    thought = prompt(THINKING, [*HELLO, {"role": "assistant", "content": "", "reasoning_content": "hm"}])
    assert thought.text == "<user>hello<assistant><think>\nhm"
    assert thought.thinking_is_open and not thought.content_is_open


def test_what_can_not_go_on_is_refused():
    with pytest.raises(RequestRefused, match="tool calls"):
        rendered(None, [*HELLO, {"role": "assistant", "tool_calls": [CALL]}])
    with pytest.raises(RequestRefused, match="both"):
        rendered(None, [*HELLO, {"role": "assistant", "content": "x"}], continue_final_message=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": None},
        {"messages": [{"role": "assistant"}]},
        {"messages": [{"role": "assistant", "tool_calls": 7}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": {}}]}]},
        {"tools": 7},
        {"tools": [7]},
        {"tools": [{"type": "function", "function": {"name": 7}}]},
        {"tools": [{"type": "function", "function": {"name": "x", "parameters": 7}}]},
        {"tools": [TOOL], "grammar": "root ::= [a]"},
        {"tool_choice": "sometimes"},
        {"chat_template_kwargs": 7},
        {"chat_template_kwargs": {"enable_thinking": "yes"}},
        {"continue_final_message": 7},
        {"add_generation_prompt": 7},
        {"parallel_tool_calls": 7},
        {"reasoning_format": 7},
    ],
    ids=str,
)
def test_what_is_no_conversation_is_refused_by_name(fields):
    with pytest.raises(RequestRefused) as refused:
        read_conversation({"messages": HELLO} | fields)
    assert refused.value.parameter
