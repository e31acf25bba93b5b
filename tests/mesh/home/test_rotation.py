from pathlib import Path
from random import Random

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.mesh.admission.admission import Admission
from mesh_llm.mesh.admission.certificates import LINKS_MAX, verified
from mesh_llm.mesh.admission.joining import Declined, JoinRequest
from mesh_llm.mesh.admission.ledger import KnownMember
from mesh_llm.mesh.admission.notices import NoticeReceived
from mesh_llm.mesh.home.files import replace_private
from mesh_llm.mesh.home.identity import KEY_FILE, NEXT_KEY_FILE, load_or_create_key
from mesh_llm.mesh.home.ledger_file import LEDGER_FILE, load_ledger, save_ledger
from mesh_llm.mesh.home.rotation import rotate_key, rotated, settle_rotation
from mesh_llm.mesh.home.running import only_node_of
from mesh_llm.mesh.transport import Addresses
from tests.mesh.members import NOW, certificates_of, invite, is_in, key, let_in, line


def home_of(member: Admission, number: int, home: Path, knows: list[Admission]) -> Path:
    known = tuple(KnownMember(each.me, each.certificate, Addresses(), int(NOW)) for each in knows)
    replace_private(home / KEY_FILE, key(number).seed)
    save_ledger(home, member.ledger.with_members(known))
    return home


def started(home: Path) -> Admission:
    settle_rotation(home)
    node_key = load_or_create_key(home, Random(5))
    ledger = load_ledger(home, node_key.node)
    assert ledger is not None
    return Admission(node_key, ledger)


def test_a_node_with_a_new_key_stays_a_member_and_its_guests_too(tmp_path: Path):
    first, second, third = line(1, 2, 3)
    rotation = rotate_key(home_of(second, 2, tmp_path, [first, third]), Random(9), NOW)
    assert rotation.old == second.me
    again = started(tmp_path)
    assert again.me == rotation.new != second.me
    for notice in again.notices.all():
        first.handle(NoticeReceived(notice, None))
    for judge in (first, again):
        assert is_in(again, at=judge)
        assert is_in(third, at=judge)
        assert not is_in(second, at=judge)
    assert is_in(let_in(again, 7), at=first)


def test_a_founder_can_replace_its_key(tmp_path: Path):
    first, second = line(1, 2)
    rotate_key(home_of(first, 1, tmp_path, [second]), Random(9), NOW)
    again = started(tmp_path)
    for notice in again.notices.all():
        second.handle(NoticeReceived(notice, None))
    assert is_in(again, at=second)
    assert is_in(second, at=again)
    assert not is_in(first, at=second)


def test_what_the_old_key_had_said_of_others_stands(tmp_path: Path):
    first, second, third = line(1, 2, 3)
    second.kick(third.me, certificates_of([third]), NOW)
    rotate_key(home_of(second, 2, tmp_path, [first]), Random(9), NOW)
    assert not is_in(third, at=started(tmp_path))


def test_invites_of_the_old_key_are_void(tmp_path: Path):
    first, second = line(1, 2)
    token = invite(second)
    rotate_key(home_of(second, 2, tmp_path, [first]), Random(9), NOW)
    again = started(tmp_path)
    assert again.ledger.issued == ()
    assert isinstance(again.answer(JoinRequest(token, "1"), key(3).node, NOW), Declined)


def test_who_is_alone_founds_its_mesh_anew(tmp_path: Path):
    rotate_key(home_of(line(1)[0], 1, tmp_path, []), Random(9), NOW)
    assert started(tmp_path).ledger.alone


def test_a_node_of_no_mesh_gets_a_new_key_only(tmp_path: Path):
    old = load_or_create_key(tmp_path, Random(1))
    rotation = rotate_key(tmp_path, Random(2), NOW)
    assert (rotation.old, rotation.new) == (old.node, load_or_create_key(tmp_path, Random(3)).node)
    assert not (tmp_path / LEDGER_FILE).exists()


def test_a_running_node_keeps_its_key(tmp_path: Path):
    load_or_create_key(tmp_path, Random(1))
    with only_node_of(tmp_path), pytest.raises(RequestRefused, match="runs"):
        rotate_key(tmp_path, Random(2), NOW)


def test_without_a_key_there_is_nothing_to_replace(tmp_path: Path):
    with pytest.raises(RequestRefused, match="no key yet"):
        rotate_key(tmp_path, Random(2), NOW)


def test_a_full_chain_has_no_room_for_another_key(tmp_path: Path):
    last = line(*range(1, LINKS_MAX + 2))[-1]
    with pytest.raises(RequestRefused, match="new --home"):
        rotate_key(home_of(last, LINKS_MAX + 1, tmp_path, []), Random(9), NOW)
    assert started(tmp_path).me == last.me


def test_killed_before_the_record_was_written_nothing_has_happened(tmp_path: Path):
    first, second = line(1, 2)
    home_of(second, 2, tmp_path, [first])
    replace_private(tmp_path / NEXT_KEY_FILE, key(9).seed)
    assert started(tmp_path).me == second.me
    assert not (tmp_path / NEXT_KEY_FILE).exists()


def test_killed_after_the_record_was_written_the_next_start_ends_it(tmp_path: Path):
    first, second = line(1, 2)
    home_of(second, 2, tmp_path, [first])
    replace_private(tmp_path / NEXT_KEY_FILE, key(9).seed)
    save_ledger(tmp_path, rotated(second.ledger, key(2), key(9), NOW))
    again = started(tmp_path)
    assert again.me == key(9).node
    assert verified(again.certificate).chain == (first.me, second.me, key(9).node)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LEDGER_FILE, KEY_FILE]


def test_a_rotation_that_was_killed_is_ended_before_the_next_one(tmp_path: Path):
    first, second = line(1, 2)
    home_of(second, 2, tmp_path, [first])
    replace_private(tmp_path / NEXT_KEY_FILE, key(9).seed)
    save_ledger(tmp_path, rotated(second.ledger, key(2), key(9), NOW))
    assert rotate_key(tmp_path, Random(9), NOW).old == key(9).node
    assert len(verified(started(tmp_path).certificate).chain) == 4


def test_a_damaged_record_ends_no_rotation(tmp_path: Path):
    _, second = line(1, 2)
    home_of(second, 2, tmp_path, [])
    replace_private(tmp_path / NEXT_KEY_FILE, key(9).seed)
    (tmp_path / LEDGER_FILE).write_bytes(b"damaged")
    with pytest.raises(RequestRefused, match="damaged"):
        settle_rotation(tmp_path)
    assert (tmp_path / NEXT_KEY_FILE).exists()
