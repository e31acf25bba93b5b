"""What iroh 1.2.0 says where something went wrong: text, of which some means something to this program.

`iroh_transport.py` hands it over: nothing here imports iroh.
"""

import re

_CLOSED_BY_PEER = re.compile(r"closed by peer: (.*) \(code \d+\)", re.DOTALL)
_OS_ERROR = re.compile(r"os error (\d+)")
_PLACE = re.compile(r"\s*\(/\S+:\d+:\d+\)")


def plain(text: str) -> str:
    """On one line, without the places in iroh's source."""
    lines = (_PLACE.sub("", line).strip() for line in text.splitlines())
    return " ".join(line for line in lines if line) or "iroh gave no reason"


def peer_stopped_reading(said: str) -> bool:
    """A stream: iroh's kinds of errors do not tell."""
    return said.startswith("Stopped(")


def why_closed(text: str) -> str:
    """The peer's own words where it closed the connection."""
    found = _CLOSED_BY_PEER.fullmatch(text)
    return found[1] if found else text


def os_error(said: str) -> int:
    """The system's number; 0 where there is none."""
    found = _OS_ERROR.search(said)
    return int(found[1]) if found else 0
