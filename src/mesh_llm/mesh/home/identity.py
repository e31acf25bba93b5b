"""The node's key on disk: HOME/node.key, 32 bytes that nobody else may read.

A file that others can read, or that is not a key, is told and never mended or overwritten: a node that
silently became another one would be a stranger to its mesh.
"""

import os
import stat
from pathlib import Path
from random import Random

from mesh_llm.core.errors import RequestRefused
from mesh_llm.mesh.admission.signatures import SEED_BYTES, NodeKey
from mesh_llm.mesh.home.files import replace_private

KEY_FILE = "node.key"
NEXT_KEY_FILE = "node.key.next"
"""A key that is to replace the other one: see `rotation.py`."""


def load_or_create_key(home: Path, chance: Random) -> NodeKey:
    """Raises RequestRefused where the file is damaged or readable by others."""
    key = load_key(home / KEY_FILE)
    if key is None:
        key = NodeKey.draw(chance)
        replace_private(home / KEY_FILE, key.seed)
    return key


def load_key(path: Path) -> NodeKey | None:
    """None where there is no file. Raises RequestRefused."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            seed = file.read(SEED_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestRefused(f"The node's key {path} cannot be read: {error.strerror}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise RequestRefused(
            f"Others on this machine can read the node's key: run `chmod 600 {path}`, "
            "and then `mesh-llm rotate-key` if you do not trust them."
        )
    if len(seed) != SEED_BYTES:
        raise RequestRefused(
            f"{path} is damaged: a key has {SEED_BYTES} bytes. Put the right file back, or delete it and "
            "mesh.json beside it, and join with a new invite."
        )
    return NodeKey(seed)
