"""The members as one node sees them: who lives, who is gone, and a digest to compare views by.

Keeps what `membership.py` has decided; decides nothing but whom to forget when too many are gone.
"""

from bisect import bisect_right
from hashlib import blake2b

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.membership_events import Member
from mesh_llm.mesh.gossip.messages import DIGEST_BYTES
from mesh_llm.mesh.gossip.news import Health

MEMBERS_MAX = 1000
"""Living ones. Everybody talks to everybody: more would need another design."""
GONE_MAX = 1000
"""Dead or left: remembered so that a healed partition finds itself, and stale news is known as such."""
GONE_SECONDS_MAX = 3600.0
"""Then even they are forgotten; whoever comes back later is introduced anew."""


class Roster:
    def __init__(self) -> None:
        self._members: dict[NodeId, Member] = {}
        self._gone: dict[NodeId, float] = {}
        """Since when, the longest gone first."""
        self._living: tuple[NodeId, ...] | None = None
        self._digest: bytes | None = None

    def __contains__(self, node: NodeId) -> bool:
        return node in self._members

    def __len__(self) -> int:
        return len(self._members)

    def get(self, node: NodeId) -> Member | None:
        return self._members.get(node)

    def all(self) -> tuple[Member, ...]:
        return tuple(self._members[node] for node in sorted(self._members))

    def living(self) -> tuple[NodeId, ...]:
        """In the order of their ids."""
        if self._living is None:
            self._living = tuple(
                sorted(node for node, member in self._members.items() if member.health.living)
            )
        return self._living

    def gone(self) -> tuple[NodeId, ...]:
        return tuple(self._gone)

    def gone_of(self, health: Health) -> list[NodeId]:
        return [node for node in sorted(self._gone) if self._members[node].health is health]

    def has_room(self) -> bool:
        return len(self.living()) < MEMBERS_MAX

    def after(self, node: NodeId) -> NodeId | None:
        """The living one that follows in the ring of ids."""
        living = self.living()
        return living[bisect_right(living, node) % len(living)] if living else None

    def put(self, member: Member) -> bool:
        """Whether the digest is another now."""
        before = self._members.get(member.node)
        self._members[member.node] = member
        self._gone.pop(member.node, None)
        if not member.health.living:
            self._gone[member.node] = member.since
        lived = before is not None and before.health.living
        if lived == member.health.living and (
            not lived or (before is not None and before.version == member.version)
        ):
            return False
        self._touched()
        return True

    def remove(self, node: NodeId) -> None:
        if self._members.pop(node, None) is not None:
            self._gone.pop(node, None)
            self._touched()

    def forgettable(self, now: float) -> list[NodeId]:
        """Gone for too long, or one too many."""
        surplus = len(self._gone) - GONE_MAX
        return [
            node
            for place, (node, since) in enumerate(self._gone.items())
            if place < surplus or now - since > GONE_SECONDS_MAX
        ]

    def digest(self, me: NodeId, version: int, records: bytes) -> bytes:
        """Equal on two nodes that hold the same adverts of the same living members, and the same records."""
        if self._digest is None:
            versions = {node: self._members[node].version for node in self.living()} | {me: version}
            whole = blake2b(records, digest_size=DIGEST_BYTES)
            for node in sorted(versions):
                whole.update(b"%s %d\n" % (node.encode(), versions[node]))
            self._digest = whole.digest()
        return self._digest

    def forget_digest(self) -> None:
        """Something else that it covers has changed."""
        self._digest = None

    def _touched(self) -> None:
        self._living = None
        self._digest = None
