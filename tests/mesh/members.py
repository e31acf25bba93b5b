"""Members for tests, let in as real ones are: by an invite at a door."""

from collections.abc import Iterable
from random import Random

from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.invites import Door
from mesh_llm.mesh.admission.joining import Admitted, JoinRequest
from mesh_llm.mesh.admission.ledger import Ledger, founded
from mesh_llm.mesh.admission.notices import Effect, Forward, NoticeReceived
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.transport import Addresses

NOW = 1_800_000_000.0
LATER = NOW + 3600
NONCE = bytes(range(16))


def key(number: int) -> NodeKey:
    return NodeKey(number.to_bytes(32, "big"))


def key_of(member: Admission) -> NodeKey:
    return next(key(number) for number in range(100) if key(number).node == member.me)


def founder(number: int = 1) -> Admission:
    return Admission(key(number), founded(key(number).node, NONCE))


def door(member: Admission) -> Door:
    return Door(member.me, Addresses(("192.168.1.5:51234",)))


def invite(member: Admission, *, once: bool = False, ttl_s: int = 3600, seed: int = 7) -> str:
    return member.invite([door(member)], NOW, Random(seed), ttl_s=ttl_s, once=once)


def let_in(at: Admission, number: int, token: str | None = None) -> Admission:
    token = token or invite(at, seed=number)
    answer = at.answer(JoinRequest(token, "1"), key(number).node, NOW)
    assert isinstance(answer, Admitted), answer
    return Admission(key(number), Ledger(answer.certificate, notices=answer.notices))


def line(*numbers: int) -> list[Admission]:
    """The first founds a mesh, and each lets in the next."""
    members = [founder(numbers[0])]
    for number in numbers[1:]:
        members.append(let_in(members[-1], number))
    return members


def certificates_of(members: Iterable[Admission]) -> list[bytes]:
    return [member.certificate for member in members]


def tell(effects: Iterable[Effect], members: Iterable[Admission]) -> None:
    """What is to be forwarded reaches each of these."""
    for effect in effects:
        if isinstance(effect, Forward):
            for member in members:
                member.handle(NoticeReceived(effect.notice, None))


def is_in(member: Admission, *, at: Admission) -> bool:
    return at.judge(member.certificate, member.me) is None
