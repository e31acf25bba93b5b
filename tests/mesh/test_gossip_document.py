"""The example conversation of docs/protocols/gossip.md, spoken again by the machines, byte by byte."""

import re
from collections import deque
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.exchange import AdvertsWanted, View
from mesh_llm.mesh.gossip.membership import Membership
from mesh_llm.mesh.gossip.membership_events import (
    AdvertHeld,
    Doubted,
    Effect,
    Event,
    GossipDue,
    Introduced,
    MemberChanged,
    MessageReceived,
    ReportOverdue,
    SendMessage,
    Started,
    StartTimer,
    SuspicionExpired,
    Synchronise,
    Timer,
    TimerFired,
    ViewReceived,
    WantAdvert,
)
from mesh_llm.mesh.gossip.outlook import Timing

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocols" / "gossip.md"
NODES = {name: NodeId(name.lower() * 64) for name in "ABC"}
NAMES = {node: name for name, node in NODES.items()}


class Stage:
    """The three machines, and what each has said that has not been read in the document yet."""

    def __init__(self) -> None:
        patient = Timing(asleep=60)  # the questions of each second are left out of the story
        self.machines = {name: Membership(node, Random(1), timing=patient) for name, node in NODES.items()}
        self.wanted: set[tuple[str, NodeId]] = set()
        self.said: deque[str] = deque()
        self.timers: dict[str, deque[Timer]] = {name: deque() for name in NODES}
        self.now = 0.0

    def take(self, name: str, event: Event) -> None:
        for effect in self.machines[name].handle(event, self.now):
            self._note(name, effect)

    def _note(self, name: str, effect: Effect) -> None:
        match effect:
            case SendMessage(to, message):
                self.said.append(f"{name} > {NAMES[to]} datagram {wire.encode(message).hex()}")
            case MemberChanged(member):
                self.said.append(f"{name} sees {NAMES[member.node]} {member.health.name}")
            case Synchronise(peer):
                view = exchange.encode(View(self.machines[name].view()))
                self.said.append(f"{name} > {NAMES[peer]} frame {view.hex()}")
            case WantAdvert(node, _, peer) if (name, node) not in self.wanted:
                self.wanted.add((name, node))
                self.said.append(
                    f"{name} > {NAMES[peer]} frame {exchange.encode(AdvertsWanted((node,))).hex()}"
                )
            case StartTimer(_, ReportOverdue() | SuspicionExpired() | GossipDue() as timer):
                self.timers[name].append(timer)
            case _:
                pass

    def play(self, line: str) -> None:
        """One line of the document: something that happens, or something that was said and now arrives."""
        if line in self.said:
            self.said.remove(line)
            spoken = re.fullmatch(r"(\w) > (\w) (datagram|frame) ([0-9a-f]+)", line)
            if spoken is not None and spoken[2] != "C":  # C is dead in this story
                self._arrive(spoken[1], spoken[2], spoken[3], bytes.fromhex(spoken[4]))
        elif started := re.fullmatch(r"(\w) starts, its advert has version (\d+)", line):
            self.take(started[1], Started())
            self.take(started[1], AdvertHeld(NODES[started[1]], int(started[2])))
        elif introduced := re.fullmatch(r"(\w) is introduced to (\w)", line):
            self.take(introduced[1], Introduced((NODES[introduced[2]],)))
        elif holds := re.fullmatch(r"(\w) holds the advert of (\w), version (\d+)", line):
            self.take(holds[1], AdvertHeld(NODES[holds[2]], int(holds[3])))
        elif doubts := re.fullmatch(r"(\w) loses its connection to (\w)", line):
            self.take(doubts[1], Doubted(NODES[doubts[2]]))
        elif waited := re.fullmatch(r"(\w) has waited ([\d.]+) s: (\w+)", line):
            self.now += float(waited[2])
            [due] = [timer for timer in self.timers[waited[1]] if type(timer).__name__ == waited[3]][-1:]
            self.take(waited[1], TimerFired(due))
        else:
            pytest.fail(f"{line!r} is not what happens. Unread: {list(self.said)}")

    def _arrive(self, sender: str, to: str, kind: str, data: bytes) -> None:
        if kind == "datagram":
            self.take(to, MessageReceived(NODES[sender], wire.decode(data)))
            return
        frame = exchange.decode(data)
        if isinstance(frame, View) and sender == "A":
            answer = exchange.encode(View(self.machines[to].answer_to(frame.members)))
            self.said.append(f"{to} > {sender} frame {answer.hex()}")
        if isinstance(frame, View):
            self.take(to, ViewReceived(NODES[sender], frame.members))


def conversation() -> list[str]:
    [block] = re.findall(r"```conversation\n(.*?)```", DOCUMENT.read_text("utf-8"), re.S)
    lines = [line.split("#")[0].strip() for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [line for line in lines if line]


def test_the_conversation_of_the_document_is_what_is_spoken():
    stage = Stage()
    lines = conversation()
    for line in lines:
        stage.play(line)
    assert stage.said == deque()
    assert any("DEAD" in line for line in lines)


@pytest.mark.parametrize("kind", [*wire.DatagramKind, *exchange.FrameKind])
def test_the_document_names_every_kind(kind):
    assert f"| {int(kind)} | `{kind.name}` |" in DOCUMENT.read_text("utf-8")
