"""For how long stages of a model have been impossible, and when that is taken for lasting. Pure: plans and
the time in, a yes or no out.

Asked before a node prepares something worse than stages. Counterpart: `splitting.py` makes the plans.
"""

from mesh_llm.planner.split_plan import Plan, Wait

ALONE_SECONDS = 4.0
"""With no other member known, after the 3 s in which a claim settles: who joins right after this node's start
is in the next plan, which each change of the mesh rings for. Who joins later comes in time while a cut is
measured, which takes minutes; once that is known, others mostly are too."""

ACQUAINTED_SECONDS = 30.0
"""With other members known, living or not: machines that start together, after a power failure say, take some
ten seconds more or less, and each asks its devices and looks at its models before it has memory to lend."""


class StageHope:
    """For one model."""

    def __init__(self) -> None:
        self._lost_since: float | None = None

    def is_lost(self, plan: Plan | None, now: float, *, knows_others: bool) -> bool:
        """`plan`: the last of the node that leads the model; None where this node does not lead it, or has
        not planned yet. To be called every second or so; `now`: seconds of a clock that never goes back."""
        if not isinstance(plan, Wait):
            self._lost_since = None
            return False
        if self._lost_since is None:
            self._lost_since = now
        return now - self._lost_since >= (ACQUAINTED_SECONDS if knows_others else ALONE_SECONDS)
