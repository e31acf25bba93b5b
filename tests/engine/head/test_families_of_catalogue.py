"""Every model that has a name here writes calls in a form that a head understands, or was taught none."""

import re

import pytest

from mesh_llm.engine.head.families import Family
from mesh_llm.engine.head.parsing.parsers import PARSERS
from mesh_llm.models.catalogue import load_catalogue
from tests.engine.head.parsing.recordings import recordings

FAMILIES = {
    r"SmolLM2|Gemma-3|GLM-4-32B|Mixtral": Family.PLAIN,
    r"Qwen2\.5|Qwen3-\d|Hermes": Family.HERMES,
    r"Qwen3-Coder|Qwen3\.5": Family.QWEN_CODER,
    r"Llama": Family.LLAMA3,
    r"Mistral-Small-3\.1": Family.MISTRAL,
    r"Devstral": Family.MISTRAL_ARGS,
    r"GLM-4\.7": Family.GLM,
    r"DeepSeek-R1": Family.DEEPSEEK_R1,
    r"MiniMax": Family.MINIMAX,
}
"""By the beginning of names, after what their makers publish; in service the file's own template decides.
PLAIN: those that were taught no tools, whose calls the gateway enforces itself."""


@pytest.mark.parametrize("name", [entry.name for entry in load_catalogue().entries])
def test_a_model_of_the_catalogue_is_of_one_family_whose_answers_are_recorded(name: str):
    (family,) = (family for begin, family in FAMILIES.items() if re.match(begin, name))
    assert family in PARSERS
    assert any(recording.family is family for recording in recordings())
