import json
import logging

import pytest

from mesh_llm.runtime import logs


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger(logs.ROOT)
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


def test_people_read_the_message_alone(capsys):
    logs.configure("pretty")
    logging.getLogger("mesh_llm.node").info("ready", extra={"fields": {"port": 9337}})
    assert capsys.readouterr().err == "ready\n"


def test_programs_read_one_object_a_line_with_its_fields(capsys):
    logs.configure("json")
    logging.getLogger("mesh_llm.node").warning("a\nb", extra={"fields": {"port": 9337}})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "event": "node", "message": "a\nb", "port": 9337}
