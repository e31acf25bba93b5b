"""Who is out, computed from all expulsions that are known: those who know the same agree.

Anyone may expel. An expulsion is void where its issuer was thrown out by somebody strictly more senior, that
is nearer to the founder: so who is thrown out cannot take others along, and equals who expel each other are
both out. A node that takes itself out (its key was replaced) is always out. Who was let in by somebody who is
out stays if the expulsion spares it, or spares one between the two. Nothing here depends on clocks or on the
order in which notices came.
"""

from collections.abc import Iterable

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.admission.certificates import Standing
from mesh_llm.mesh.admission.notices import Expulsion


class Expulsions:
    def __init__(self, known: Iterable[Expulsion]) -> None:
        self._of: dict[NodeId, list[Expulsion]] = {}
        for expulsion in sorted(known, key=lambda each: (each.by.depth, each.id)):
            # More senior ones have all been judged by now, and only they can make this one void.
            if expulsion.own or not self._voided(expulsion.by):
                self._of.setdefault(expulsion.expelled, []).append(expulsion)

    def effective(self) -> tuple[Expulsion, ...]:
        return tuple(expulsion for each in self._of.values() for expulsion in each)

    def named(self, node: NodeId) -> bool:
        """Whether the node itself was expelled, whatever it can show."""
        return node in self._of

    def out(self, standing: Standing) -> bool:
        """Whether the holder was expelled, or hangs on somebody who was without being spared each time."""
        return any(_hits(expulsion, standing) for expulsion in self._against(standing))

    def _voided(self, issuer: Standing) -> bool:
        return any(
            expulsion.by.depth < issuer.depth
            and expulsion.by.node != issuer.node
            and _hits(expulsion, issuer)
            for expulsion in self._against(issuer)
        )

    def _against(self, standing: Standing) -> Iterable[Expulsion]:
        return (expulsion for node in standing.chain for expulsion in self._of.get(node, ()))


def _hits(expulsion: Expulsion, standing: Standing) -> bool:
    below = standing.chain[standing.chain.index(expulsion.expelled) + 1 :]
    return expulsion.spared.isdisjoint(below)


def descendants(node: NodeId, standings: Iterable[Standing]) -> frozenset[NodeId]:
    """Those whose membership hangs on `node`."""
    return frozenset(standing.node for standing in standings if node in standing.chain[:-1])
