import json

import pytest

from mesh_llm.gateway.exchange import TemplateAbilities
from mesh_llm.gateway.templates import UNKNOWN, Templates, read_abilities
from mesh_llm.gateway.upstream import HttpUpstream
from tests.gateway.broken_engine import broken_engine, hangs


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"supports_tools": True, "supports_system_role": True}, TemplateAbilities(True, True)),
        ({"supports_tools": False, "supports_system_role": False}, TemplateAbilities(False, False)),
        ({}, TemplateAbilities(tools=False, system_role=True)),
    ],
)
def test_abilities_are_what_the_engine_says(told, expected):
    assert read_abilities(json.dumps({"chat_template_caps": told}).encode()) == expected


@pytest.mark.parametrize("props", [b"", b"[]", b"{}", b'{"chat_template_caps": 7}', b"\xff"])
def test_an_engine_that_says_nothing_is_left_to_handle_tools_itself(props):
    assert read_abilities(props) == UNKNOWN


async def test_an_engine_without_the_question_is_asked_once():
    templates, upstream = Templates(), HttpUpstream()
    await upstream.open()
    async with broken_engine(hangs) as engine:
        assert await templates.abilities(engine.endpoint, upstream) == UNKNOWN
    assert await templates.abilities(engine.endpoint, upstream) == UNKNOWN  # it is gone, and not missed
    await upstream.close()
