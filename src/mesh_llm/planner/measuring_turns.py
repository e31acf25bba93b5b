"""Who measures a mixture of experts where several nodes lack the same figure: one, and the others wait.

Pure: what nodes say of themselves in, whose turn it is out; all who hear the same agree. Counterparts:
`core/offers.py` carries what they say, `node/measuring.py` waits and asks.
"""

from collections.abc import Mapping

from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import MEASURES_NOW, WOULD_MEASURE


def whose_turn(measuring: Mapping[NodeId, str]) -> NodeId | None:
    """Of all that lack the figure, with what each says (`CutOffer.measuring`): whoever has begun, else the
    lowest id of those that would. None where nobody can."""
    ranks = {MEASURES_NOW: 0, WOULD_MEASURE: 1}
    able = [(ranks[said], node) for node, said in measuring.items() if said in ranks]
    return min(able)[1] if able else None
