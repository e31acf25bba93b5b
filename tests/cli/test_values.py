import argparse
from collections.abc import Callable

import pytest

from mesh_llm.cli.values import (
    DURATION_SECONDS_MAX,
    RELAY_CHARACTERS_MAX,
    duration,
    machines,
    node_name,
    relay,
)
from mesh_llm.mesh import addresses
from mesh_llm.mesh.admission.invites import TTL_SECONDS_MAX
from mesh_llm.mesh.transport import Addresses


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("1s", 1)]
)
def test_a_duration_is_a_number_with_one_unit(text: str, seconds: int):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "1h30m", "07d", "7D", "1w", "٣h", "1٣h", "1234567s", "7d\n"],
)
def test_anything_else_is_no_duration(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="30m, 12h or 7d"):
        duration(text)


@pytest.mark.parametrize("text", ["366d", "999999d", "8761h"])
def test_nothing_lasts_longer_than_an_invite_may(text: str):
    assert DURATION_SECONDS_MAX == TTL_SECONDS_MAX == duration("365d")
    with pytest.raises(argparse.ArgumentTypeError, match="longer than a year"):
        duration(text)


@pytest.mark.parametrize("text", ["https://relay.example.org", "http://127.0.0.1:3340/", "https://[::1]:1"])
def test_a_relay_is_a_web_address(text: str):
    assert relay(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relay.example.org",
        "ftp://a",
        "https://",
        "https://a:b",
        "https://a:70000",
        "https://[",
        "h ttp://a",
    ],
)
def test_anything_else_is_no_relay(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match=r"https://relay\.example\.org"):
        relay(text)


def test_a_relay_that_other_nodes_would_refuse_is_refused_at_once():
    host = "https://relay.example.org/"
    longest = host + "r" * (RELAY_CHARACTERS_MAX - len(host))
    assert relay(longest) == longest
    with pytest.raises(argparse.ArgumentTypeError, match="of 201 characters: other nodes take 200 at most"):
        relay(longest + "r")
    assert addresses.are_tellable(Addresses(relay=longest + "/"))


def test_a_name_may_have_spaces_inside_and_foreign_letters():
    assert node_name(" Büro 2 ") == "Büro 2"


@pytest.mark.parametrize("text", ["", "  ", "a" * 64, "a\nb", "\x1b[31m"])
def test_a_name_that_would_disturb_a_terminal_is_refused(text: str):
    refusing: Callable[[str], str] = node_name
    with pytest.raises(argparse.ArgumentTypeError, match="1 to 63"):
        refusing(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "leaves out"),
        ("1,,2", "leaves out"),
        ("1,", "leaves out"),
        ("-1", "no amount of GB"),
        ("1,-2", "no amount of GB"),
        ("0", "no amount of GB"),
        ("nan", "no amount of GB"),
        ("inf", "no amount of GB"),
        ("1e3", "no amount of GB"),
        ("many", "no amount of GB"),
        ("9999999", "no amount of GB"),
        (",".join(["1"] * 65), "at most 64"),
    ],
)
def test_machines_that_cannot_be_are_refused_with_the_reason(text: str, why: str):
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        machines(text)


def test_machines_are_given_by_their_memory():
    assert machines("24, 24,7.5") == (24_000_000_000, 24_000_000_000, 7_500_000_000)
