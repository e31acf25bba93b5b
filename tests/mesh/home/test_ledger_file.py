import json
from dataclasses import replace
from pathlib import Path

import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.mesh.admission.ledger import KnownMember, Ledger
from mesh_llm.mesh.home.ledger_file import LEDGER_FILE, load_ledger, save_ledger
from mesh_llm.mesh.transport import Addresses
from tests.mesh.members import NOW, certificates_of, founder, invite, key, let_in, line
from tests.mesh.mutations import mutations


def full() -> Ledger:
    first, second, third = line(1, 2, 3)
    let_in(first, 4, invite(first, once=True))
    first.kick(second.me, certificates_of([second, third]), NOW)
    addresses = Addresses(("192.168.1.5:51234",), "https://relay.example")
    ledger = replace(first.ledger, port=51234)
    return ledger.with_members((KnownMember(third.me, third.certificate, addresses, int(NOW)),))


def test_a_home_that_belongs_to_no_mesh_has_no_ledger(tmp_path: Path):
    assert load_ledger(tmp_path, key(1).node) is None


@pytest.mark.parametrize("ledger", [full(), founder().ledger])
def test_a_ledger_is_read_as_it_was_written(tmp_path: Path, ledger: Ledger):
    save_ledger(tmp_path, ledger)
    assert load_ledger(tmp_path, key(1).node) == ledger
    assert (tmp_path / LEDGER_FILE).stat().st_mode & 0o777 == 0o600


def test_a_person_can_read_which_mesh_it_is(tmp_path: Path):
    save_ledger(tmp_path, full())
    fields = json.loads((tmp_path / LEDGER_FILE).read_text("utf-8"))
    assert fields["mesh"] == full().mesh
    assert fields["founder"] == key(1).node


def test_fields_of_newer_versions_are_passed_over(tmp_path: Path):
    save_ledger(tmp_path, full())
    path = tmp_path / LEDGER_FILE
    fields = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**fields, "weather": {"sun": True}}), encoding="utf-8")
    assert load_ledger(tmp_path, key(1).node) == full()


def test_another_keys_ledger_is_told(tmp_path: Path):
    save_ledger(tmp_path, full())
    with pytest.raises(RequestRefused, match="another key"):
        load_ledger(tmp_path, key(2).node)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"certificate": 5}'])
def test_a_damaged_ledger_is_told_and_left_as_it_is(tmp_path: Path, data: bytes):
    (tmp_path / LEDGER_FILE).write_bytes(data)
    with pytest.raises(RequestRefused, match=r"mesh\.json is damaged .* new invite"):
        load_ledger(tmp_path, key(1).node)
    assert (tmp_path / LEDGER_FILE).read_bytes() == data


def test_a_ledger_with_a_forged_part_is_damaged(tmp_path: Path):
    ledger = full()
    for forged in (
        replace(ledger, notices=(b"no notice",)),
        replace(ledger, members=(replace(ledger.members[0], certificate=b"none"),)),
    ):
        save_ledger(tmp_path, forged)
        with pytest.raises(RequestRefused, match="damaged"):
            load_ledger(tmp_path, key(1).node)


def test_a_ledger_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / LEDGER_FILE).mkdir()
    with pytest.raises(RequestRefused, match="cannot be read"):
        load_ledger(tmp_path, key(1).node)


def test_no_noise_crashes_the_start(tmp_path: Path):
    save_ledger(tmp_path, full())
    path = tmp_path / LEDGER_FILE
    refused = 0
    for data in mutations([path.read_bytes()], count=1000):
        path.write_bytes(data)
        try:
            load_ledger(tmp_path, key(1).node)
        except RequestRefused:
            refused += 1
    assert refused > 800
