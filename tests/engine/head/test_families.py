import pytest

from mesh_llm.engine.head.families import Family, Thinking, family_of
from mesh_llm.engine.head.template import ChatTemplate, SpecialTexts
from tests.engine.head.family_templates import TEMPLATES

SPECIAL = SpecialTexts("<s>", "</s>", adds_beginning=True, adds_end=False)


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


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("HERMES", Thinking("<think>\n", "\n</think>\n\n")),
        ("GLM", Thinking("<think>", "</think>\n")),
        ("MINISTRAL", Thinking("[THINK]", "[/THINK]")),
        ("DEEPSEEK_R1", Thinking("<think>", "</think>")),
        ("GEMMA", Thinking("<|channel>thought\n", "<channel|>")),
        ("HARMONY", None),
        ("LLAMA3", None),
    ],
)
def test_thoughts_stand_between_marks_with_the_white_space_of_the_template(name, thinking):
    assert ChatTemplate(TEMPLATES[name], SPECIAL).thinking == thinking
