"""`mesh-llm rotate-key`: a new key for a node that does not run, which stays the member that it was.

The old key vouches for the new one and takes itself out; the others hear of it at the next start. Three files
change, in an order that survives being killed in between: the next key, the ledger (from here on the new key
is the node's), the key.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from mesh_llm.core.errors import DiskFull, RequestRefused
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission import certificates
from mesh_llm.mesh.admission.certificates import LINKS_MAX, NONCE_BYTES, REPLACED
from mesh_llm.mesh.admission.expulsions import descendants
from mesh_llm.mesh.admission.ledger import Ledger, founded
from mesh_llm.mesh.admission.notices import expulsion
from mesh_llm.mesh.admission.signatures import NodeKey
from mesh_llm.mesh.home.files import replace_private, sync_folder
from mesh_llm.mesh.home.identity import KEY_FILE, NEXT_KEY_FILE, load_key
from mesh_llm.mesh.home.ledger_file import load_ledger, read_ledger, save_ledger
from mesh_llm.mesh.home.running import only_node_of


@dataclass(frozen=True, slots=True)
class Rotation:
    """For people."""

    old: NodeId
    new: NodeId


def rotate_key(home: Path, chance: Random, now: float) -> Rotation:
    """Raises RequestRefused where there is no key, a node runs, or a file is damaged."""
    with only_node_of(home):
        settle_rotation(home)
        old = load_key(home / KEY_FILE)
        if old is None:
            raise RequestRefused(f"{home} has no key yet: the first start of a node makes one.")
        new = NodeKey.draw(chance)
        ledger = load_ledger(home, old.node)
        replace_private(home / NEXT_KEY_FILE, new.seed)
        if ledger is not None:
            nonce = chance.randbytes(NONCE_BYTES)
            alone = ledger.alone  # nobody knows the old key: its mesh begins anew
            save_ledger(home, founded(new.node, nonce) if alone else rotated(ledger, old, new, now))
        _take_over(home)
    return Rotation(old.node, new.node)


def rotated(ledger: Ledger, old: NodeKey, new: NodeKey, now: float) -> Ledger:
    """The ledger as the new key's. Raises RequestRefused."""
    certificate = certificates.decode(ledger.certificate)
    if not certificates.can_extend(certificate, new.node):
        raise RequestRefused(
            f"This node is {LINKS_MAX} steps away from the founder of its mesh, with no room for another "
            "key. Join with a new invite and a new --home instead."
        )
    extended = certificates.extend(certificate, old, new.node, now, REPLACED)
    standings = [certificates.verified(member.certificate) for member in ledger.members]
    spared = descendants(old.node, standings) | {new.node}
    notice = expulsion(old, ledger.certificate, old.node, spared, now)
    return replace(
        ledger,
        certificate=certificates.encode(extended),
        issued=(),  # the others refuse what the old key signed
        used=(),
        notices=(*ledger.notices, notice),
    )


def settle_rotation(home: Path) -> None:
    """Ends what a killed `rotate_key` began, or forgets it; to be called before the key is read.
    Raises RequestRefused where a file is damaged."""
    following = load_key(home / NEXT_KEY_FILE)
    if following is None:
        return
    ledger = read_ledger(home)
    if ledger is not None and ledger.node == following.node:
        _take_over(home)
    else:
        (home / NEXT_KEY_FILE).unlink()


def _take_over(home: Path) -> None:
    try:
        (home / NEXT_KEY_FILE).replace(home / KEY_FILE)
        sync_folder(home)
    except OSError as error:
        raise DiskFull(f"{home} cannot be written to: {error.strerror}.") from error
