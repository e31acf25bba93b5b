import io
import logging
import sys

import pytest

from mesh_llm.cli.bars import BarDisplay
from mesh_llm.cli.display import display_for
from mesh_llm.cli.progress import LineDisplay
from mesh_llm.core.progress import Progress


def test_lines_come_at_each_tenth_and_no_oftener(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with LineDisplay() as display:
        for done in range(1001):
            display.show(Progress("download", "model", done * 1000, 1_000_000))
    assert len(caplog.messages) == 11
    assert caplog.messages[0] == "downloading model: 0 % of 1.0 MB"
    assert caplog.messages[-1] == "downloading model: 100 % of 1.0 MB"


def test_programs_get_the_numbers(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    LineDisplay().show(Progress("verify", "model", 5, 10))
    expected = {"activity": "verify", "subject": "model", "done": 5, "total": 10}
    assert caplog.records[0].__dict__["fields"] == expected


def test_an_unknown_total_shows_what_is_there(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    LineDisplay().show(Progress("download", "model", 2_000_000, None))
    assert caplog.messages == ["downloading model: 2.0 MB"]


def test_without_a_terminal_there_are_no_bars(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(display_for("pretty"), LineDisplay)
    assert isinstance(display_for("json"), LineDisplay)


def test_bars_come_and_go_with_their_work():
    with BarDisplay() as bars:
        bars.show(Progress("download", "model", 1, 10))
        bars.show(Progress("load", "other", 1, None))
        assert len(bars.under_way) == 2
        bars.show(Progress("download", "model", 10, 10))
        assert bars.under_way == {("load", "other")}
