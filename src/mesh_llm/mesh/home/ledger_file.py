"""HOME/mesh.json: the ledger on disk, for people to look at and for the next start.

A damaged file is told and never overwritten. Fields of newer versions are passed over, and lost at the next
write.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission import certificates
from mesh_llm.mesh.admission.ledger import IssuedInvite, KnownMember, Ledger, UsedInvite
from mesh_llm.mesh.admission.notices import Notices
from mesh_llm.mesh.home.files import replace_private
from mesh_llm.mesh.transport import PeerError

LEDGER_FILE = "mesh.json"
LEDGER_BYTES_MAX = 256 * 1024 * 1024
"""Two thousand notices of 64 KiB, in base64: more than a mesh will ever say."""


@dataclass(frozen=True, slots=True)
class _LedgerOnDisk:
    """Mesh and founder are in the certificate; here they stand for people."""

    certificate: bytes
    mesh: str = ""
    founder: str = ""
    issued: tuple[IssuedInvite, ...] = ()
    used: tuple[UsedInvite, ...] = ()
    notices: tuple[bytes, ...] = ()
    members: tuple[KnownMember, ...] = ()
    port: Annotated[int, Meta(ge=0, lt=2**16)] = 0


def load_ledger(home: Path, node: NodeId) -> Ledger | None:
    """None where this home belongs to no mesh yet. Raises RequestRefused where the file is damaged, or where
    `node` is not who it was written for."""
    ledger = read_ledger(home)
    if ledger is not None and ledger.node != node:
        raise RequestRefused(
            f"{home / LEDGER_FILE} belongs to another key than the one beside it. Put the right node.key "
            f"back, or delete {LEDGER_FILE} and join with a new invite."
        )
    return ledger


def read_ledger(home: Path) -> Ledger | None:
    """As `load_ledger`, whoever it was written for."""
    path = home / LEDGER_FILE
    data = _read(path)
    if data is None:
        return None
    try:
        written = msgspec.json.decode(data, type=_LedgerOnDisk)
        mesh = certificates.verified(written.certificate).mesh
        Notices(mesh, written.notices)
        for member in written.members:
            certificates.verified(member.certificate)
    except (msgspec.MsgspecError, RecursionError, PeerError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None
    return Ledger(
        written.certificate, written.issued, written.used, written.notices, written.members, written.port
    )


def save_ledger(home: Path, ledger: Ledger) -> None:
    """Raises DiskFull where the home cannot be written to."""
    certificate = certificates.decode(ledger.certificate)
    written = _LedgerOnDisk(
        ledger.certificate,
        certificate.mesh,
        certificate.founder,
        ledger.issued,
        ledger.used,
        ledger.notices,
        ledger.members,
        ledger.port,
    )
    replace_private(home / LEDGER_FILE, msgspec.json.format(msgspec.json.encode(written)) + b"\n")


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > LEDGER_BYTES_MAX:
                raise _damaged(path, "it is too large")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestRefused(f"{path} cannot be read: {error.strerror}.") from error


def _damaged(path: Path, why: str) -> RequestRefused:
    return RequestRefused(
        f"{path} is damaged ({why}). Put a good copy back, or delete it and join with a new invite."
    )
