"""Values on the command line, each with its own refusal: argparse names the flag, these say what it takes."""

import argparse
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from mesh_llm.core.quantities import GB

NAME_LENGTH_MAX = 63
"""A host name's limit (RFC 1035)."""

DURATION_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

DURATION_SECONDS_MAX = 365 * DURATION_SECONDS["d"]
"""As the mesh bounds its invites; its module takes longer to import than a command may."""


RELAY_CHARACTERS_MAX = 200
"""Nodes tell one another 256; iroh may write a URL out longer than it was given."""


MACHINES_MAX = 64
"""As `planner.split_view.HOSTS_MAX`."""


def whole(what: str, low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what} from {low} to {high}")
        return number

    return parse


def port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 (any free one) to 65535")
    return int(text)


def gigabytes(text: str) -> int:
    """Bytes. GB are decimal, as the makers of memory and disks count them."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of GB: write for example 16 or 7.5")
    return round(float(text) * GB)


def ratio(text: str) -> float:
    """Of perplexities: 1 is as good."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ratio of perplexities: write for example 1.15, and 1 at least"
        )
    return float(text)


def machines(text: str) -> tuple[int, ...]:
    """Bytes of memory of each."""
    given = [each.strip() for each in text.split(",")]
    if len(given) > MACHINES_MAX:
        raise argparse.ArgumentTypeError(f"{len(given)} machines: at most {MACHINES_MAX} are looked at")
    if not all(given):
        raise argparse.ArgumentTypeError(
            f"{text!r} leaves out what a machine has: write GB for each, for example 24,24,16"
        )
    return tuple(map(gigabytes, given))


def duration(text: str) -> int:
    """Seconds."""
    if not re.fullmatch(r"[1-9][0-9]{0,5}[smhd]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write for example 30m, 12h or 7d")
    seconds = int(text[:-1]) * DURATION_SECONDS[text[-1]]
    if seconds > DURATION_SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a year: write for example 30m, 12h or 7d")
    return seconds


def relay(text: str) -> str:
    try:
        parts = urlsplit(text)
        reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        reachable = False
    if not reachable or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no relay: write for example https://relay.example.org")
    if len(text) > RELAY_CHARACTERS_MAX:
        raise argparse.ArgumentTypeError(
            f"a relay's URL of {len(text)} characters: other nodes take {RELAY_CHARACTERS_MAX} at most, so "
            "give the relay a shorter one"
        )
    return text


def node_name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {NAME_LENGTH_MAX} printable characters")
    return name


def names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of devices: write for example CUDA0,CUDA1")
    return names


def api_key(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise argparse.ArgumentTypeError("a key is made of printable ASCII characters without spaces")
    return text
