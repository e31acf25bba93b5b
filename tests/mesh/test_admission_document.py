"""The example conversation of docs/protocols/admission.md, replayed with the real machines."""

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import INVITE_EXIT_CODES
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.hello import Hello, Refusal, decode_hello, encode_hello
from mesh_llm.mesh.admission.invites import parse
from mesh_llm.mesh.admission.joining import (
    Admitted,
    JoinRequest,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    welcomed,
)
from mesh_llm.mesh.admission.ledger import Ledger
from mesh_llm.mesh.admission.notices import Forward, NoticeReceived, decode_batch, encode_batches
from mesh_llm.mesh.transport import Addresses
from tests.mesh.members import NOW, door, founder, key

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocols" / "admission.md").read_text("utf-8")
VERSION = "0.3.0"


def documented() -> dict[str, str]:
    """Each step by its words: a line, and what is indented below it."""
    block = DOCUMENT.split("```conversation\n")[1].split("```")[0]
    steps = re.findall(r"^(\S.*)\n((?: .*\n)+)", block, re.MULTILINE)
    return {words: "".join(lines.split()) for words, lines in steps}


def conversation() -> Iterator[tuple[str, str]]:
    """Each step takes the bytes that the document gives for the one before, not its own."""
    said = documented()
    at_door = founder(1)
    token = at_door.invite([door(at_door)], NOW, Random(7), ttl_s=7 * 86_400)
    yield "The founder makes a token", token
    token = said["The founder makes a token"]
    yield "newcomer: JOIN", encode_request(JoinRequest(token, VERSION)).hex()
    request = decode_request(bytes.fromhex(said["newcomer: JOIN"]))
    answer = at_door.answer(request, key(2).node, NOW)
    yield "door: JOIN", encode_answer(answer).hex()
    answer = decode_answer(bytes.fromhex(said["door: JOIN"]))
    assert isinstance(answer, Admitted)
    assert welcomed(answer, parse(token, NOW), key(2).node).depth == 1
    newcomer = Admission(key(2), Ledger(answer.certificate, notices=answer.notices))
    hello = Hello(newcomer.certificate, VERSION, addresses=Addresses(("192.168.1.6:40000",)))
    yield "newcomer: HELLO", encode_hello(hello).hex()
    hello = decode_hello(bytes.fromhex(said["newcomer: HELLO"]))
    assert at_door.judge(hello.certificate, key(2).node) is None
    back = Hello(at_door.certificate, VERSION, addresses=Addresses(("192.168.1.5:51234",)))
    yield "door: HELLO", encode_hello(back).hex()
    back = decode_hello(bytes.fromhex(said["door: HELLO"]))
    assert newcomer.judge(back.certificate, key(1).node) is None
    effects = at_door.kick(key(2).node, [newcomer.certificate], NOW + 60)
    batch = encode_batches(effect.notice for effect in effects if isinstance(effect, Forward))
    yield "The founder kicks the newcomer: NOTICE to all", batch[0].hex()
    for notice in decode_batch(bytes.fromhex(said["The founder kicks the newcomer: NOTICE to all"])):
        newcomer.handle(NoticeReceived(notice, key(1).node))
    assert newcomer.judge(newcomer.certificate, newcomer.me) is Refusal.EXPELLED
    yield "newcomer: HELLO, once more", encode_hello(hello).hex()
    refusal = at_door.judge(hello.certificate, key(2).node)
    assert refusal is not None
    yield "door refuses", refusal.message.replace(" ", "")


def test_the_documented_conversation_is_what_is_said():
    steps = dict(conversation())
    assert steps == documented()
    assert len(steps) == 8


@pytest.mark.parametrize("fault", list(INVITE_EXIT_CODES))
def test_the_document_names_each_fault_with_its_exit_code(fault: str):
    assert f"| `{fault}` | {INVITE_EXIT_CODES[fault]} |" in DOCUMENT


@pytest.mark.parametrize("refusal", list(Refusal))
def test_the_document_names_each_refusal(refusal: Refusal):
    assert f"`{refusal.value}:`" in DOCUMENT
