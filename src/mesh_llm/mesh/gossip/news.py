"""What nodes tell one another about a node.

Hearsay: whoever reads it decides what it is worth (`membership.py`). Only a leave carries a proof, its
sender's signature, and therefore may be believed from anybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from mesh_llm.core.ids import NodeId

NUMBER_MAX = 2**63 - 1
"""Of incarnations, versions and sequences: what every language's integer holds."""


class Health(IntEnum):
    """In order of bad news."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3

    @property
    def living(self) -> bool:
        """A suspect counts as living until its time is up."""
        return self <= Health.SUSPECT


@dataclass(frozen=True, slots=True)
class News:
    node: NodeId
    incarnation: int
    """Counted up by the node alone, to refute what is said of it."""
    health: Health
    version: int
    """Of the newest advert of the node that the teller holds; 0 for none."""
    signature: bytes = b""
    """Of a leave by the leaver itself (`leaving.py`); empty for everything else."""


@dataclass(frozen=True, slots=True)
class Leave:
    """A node says that it goes. Belongs to one incarnation: if it comes back, it comes as a later one."""

    node: NodeId
    incarnation: int
    signature: bytes


Genuine = Callable[[Leave], bool]
"""Whether the leaver itself signed it."""
