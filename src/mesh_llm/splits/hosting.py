"""Stages that this node holds for others: each as long as its lease, which is as long as the leader's stream.

Counterparts: `lease.py` at the leader, `engine/stage/stage_worker.py` runs the layers. Whether a stage may
come, where its file comes from and how its process is started is the landlord's business, which the node
wires.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mesh_llm.core.errors import MeshError, Unavailable
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.transport import PeerError, Stream
from mesh_llm.splits import messages
from mesh_llm.splits.holder_link import Open
from mesh_llm.splits.messages import Accepted, Assign, Declined, Survey, shortened
from mesh_llm.splits.ring_door import RingDoor
from mesh_llm.splits.surveying import Surveyor
from mesh_llm.splits.tenancy import HeldStage, Supplies, Tenancy

LEASES_MAX = 16
"""At once: a node that is part of so many models swaps rather than serves."""

RETRY_AFTER_S = 60


class Landlord(Supplies, Protocol):
    """What the node decides and provides; see `Supplies` for what follows once a stage is in."""

    def admit(self, leader: NodeId, assign: Assign) -> AbstractContextManager[None]:
        """Memory set aside while it is entered. Entering raises MeshError: the leader hears the reason."""
        ...

    def memory_bytes_free(self) -> int:
        """For stages, now."""
        ...


class Hosting:
    def __init__(
        self,
        landlord: Landlord,
        surveyor: Surveyor,
        door: RingDoor,
        open_stream: Open,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is told when `holdings` would show something else."""
        self._landlord = landlord
        self._surveyor = surveyor
        self._door = door
        self._open = open_stream
        self._on_change = on_change
        self._tenancies: list[Tenancy] = []

    def __repr__(self) -> str:
        return f"<Hosting {len(self._tenancies)} stages>"

    def holdings(self) -> Sequence[HeldStage]:
        """The stages that lie here for others, oldest first."""
        return tuple(tenancy.held for tenancy in self._tenancies)

    async def answer(self, stream: Stream) -> None:
        """A STAGE stream: a survey, or a lease until it ends. Raises PeerError, Unreachable."""
        match messages.decode_from_leader(await stream.receive() or b""):
            case Survey() as survey:
                await self._surveyor.answer(stream, survey)
            case Assign() as assign:
                await self._let(stream, assign)
            case _:
                raise PeerError("a stage's stream that begins neither with an order nor with a survey")

    async def _let(self, stream: Stream, assign: Assign) -> None:
        try:
            if len(self._tenancies) >= LEASES_MAX:
                raise Unavailable(f"{LEASES_MAX} stages lie here already.", retry_after_s=RETRY_AFTER_S)
            with self._landlord.admit(stream.peer, assign):
                await stream.send(messages.encode(Accepted()))
                await self._hold(stream, assign)
        except MeshError as refusal:
            declined = Declined(
                reason=shortened(str(refusal)), memory_bytes_free=max(0, self._landlord.memory_bytes_free())
            )
            await stream.send(messages.encode(declined))
            await stream.finish()

    async def _hold(self, stream: Stream, assign: Assign) -> None:
        tenancy = Tenancy(stream, assign, self._landlord, self._door, self._open, self._on_change)
        self._tenancies.append(tenancy)
        self._on_change()
        try:
            await tenancy.last()
        finally:
            self._tenancies.remove(tenancy)
            self._on_change()
