import pytest

from mesh_llm.engine.head.families import Family, Thinking, family_of, thinking_of
from tests.engine.head.family_templates import TEMPLATES


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("HERMES", Family.HERMES),
        ("QWEN_CODER", Family.QWEN_CODER),
        ("LLAMA3", Family.LLAMA3),
        ("MISTRAL", Family.MISTRAL),
        ("MINISTRAL", Family.MISTRAL_ARGS),
        ("GLM", Family.GLM),
        ("DEEPSEEK_R1", Family.DEEPSEEK_R1),
        ("MINIMAX", Family.MINIMAX),
        ("HARMONY", Family.HARMONY),
        ("GEMMA", Family.GEMMA),
        ("PARTS", Family.PLAIN),
        ("NO_SYSTEM", Family.PLAIN),
    ],
)
def test_a_family_is_known_by_marks_in_its_template(name, family):
    assert family_of(TEMPLATES[name]) is family


def test_deepseek_writes_calls_in_three_ways():
    begin = "<\uff5ctool\u2581calls\u2581begin\uff5c>"
    assert family_of(begin + "\n```json\n") is Family.DEEPSEEK_R1
    assert family_of(begin) is Family.DEEPSEEK_V31
    assert family_of("{% set dsml_token = 'DSML' %}<function_calls>") is Family.DEEPSEEK_DSML


def test_thoughts_stand_between_marks_that_the_template_names():
    assert thinking_of(TEMPLATES["HERMES"]) == Thinking("<think>", "</think>")
    assert thinking_of(TEMPLATES["MINISTRAL"]) == Thinking("[THINK]", "[/THINK]")
    assert thinking_of(TEMPLATES["HARMONY"]) is None
    assert thinking_of(TEMPLATES["LLAMA3"]) is None
