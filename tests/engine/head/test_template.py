from datetime import datetime

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.messages import read_messages
from mesh_llm.engine.head.template import ChatTemplate, SpecialTexts, TemplateRefused

NOW = datetime(2026, 3, 9, 12, 30)
SPECIAL = SpecialTexts("<s>", "</s>", adds_beginning=True, adds_end=False)
HELLO = [{"role": "user", "content": "hello"}]


def rendered(source, messages=HELLO, **options):
    return ChatTemplate(source, SPECIAL).render(read_messages(messages), NOW, **options)


def test_without_a_template_it_is_chatml():
    template = ChatTemplate(None, SPECIAL)
    assert template.is_fallback
    assert template.render(read_messages(HELLO), NOW) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )


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
        template.render(read_messages(HELLO), NOW)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'a' * 999999999 }}",
        "{{ 9 ** 99999999 }}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{{ range(999999999) | list }}",
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
    assert rendered("{{ enable_thinking }}", extra={"enable_thinking": False}) == "False"


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
