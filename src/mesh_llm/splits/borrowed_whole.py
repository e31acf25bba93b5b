"""A whole model that another node runs for this one and serves to the mesh: as long as its STAGE stream.

To the holder it is a lease like that of a stage, of all layers, and never linked to a ring.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from mesh_llm.planner.split_plan import Whole
from mesh_llm.splits.assembly import Site
from mesh_llm.splits.borrowed_stage import BorrowedStage, borrowed_stage
from mesh_llm.splits.messages import ID_BYTES, Assign, bytes_of
from mesh_llm.splits.split_source import SplitSource


def borrowed_whole(
    plan: Whole, source: SplitSource, site: Site, on_progress: Callable[[float], None]
) -> AbstractAsyncContextManager[BorrowedStage]:
    """Leaving it ends the model there. Entering raises StageLost."""
    assign = Assign(
        ring=site.chance.randbytes(ID_BYTES),
        model=source.identity,
        name=source.name,
        parts=source.parts,
        holders=bytes_of(site.holders()),
        first=0,
        end=source.cuttable.facts.layers,
        stage=1,
        whole=True,
        context=plan.fit.context,
        sequences=plan.fit.slots,
        batch=plan.fit.batch,
        kv_type=plan.fit.kv_type,
        memory_bytes=plan.fit.need.total,
    )
    name = site.names().get(plan.node, "")
    return borrowed_stage(site.open_stream, plan.node, name, assign, on_progress)
