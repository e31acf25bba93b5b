import json

import pytest

from mesh_llm.engine.head.ring_state import RingDown, RingUp, from_text, to_fields
from mesh_llm.engine.head.settings import HeadSettings
from tests.engine.head.heads import SMALL


def test_settings_cross_as_one_line():
    line = SMALL.to_line()
    assert b"\n" not in line and HeadSettings.from_line(line) == SMALL


@pytest.mark.parametrize(
    "state", [RingUp((10, 12), "f16", 0.04, (100, 200), 300), RingDown("a stage is gone")]
)
def test_states_of_the_ring_cross_as_text(state):
    assert from_text(json.dumps(to_fields(state))) == state


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"up": true}', '{"up": false}', '{"up": true, "layers": 7}']
)
def test_what_is_no_state_is_told(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words for some
        from_text(text)
