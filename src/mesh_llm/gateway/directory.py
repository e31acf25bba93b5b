"""Who serves which model, here and on other nodes, now: the one view that routing and lists share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.core.serving import Ready
from mesh_llm.gateway.backend import Backend
from mesh_llm.gateway.candidates import Place
from mesh_llm.gateway.flights import Flights
from mesh_llm.gateway.offers import offer_of
from mesh_llm.gateway.openai.models import Row, status_elsewhere, status_here
from mesh_llm.gateway.queue import Lines
from mesh_llm.gateway.remote import Mesh, RemoteServer
from mesh_llm.gateway.routing import Standing, standing_elsewhere, standing_here
from mesh_llm.gateway.speeds import Speeds

HERE = "here"
THIS_NODE = "this node"


@dataclass(frozen=True, slots=True)
class Server:
    place: Place
    target: Backend | RemoteServer


class Directory:
    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        mesh: Mesh | None,
        lines: Lines,
        speeds: Speeds,
        flights: Flights,
    ) -> None:
        self._backends = backends
        self._mesh = mesh
        self._lines = lines
        self._speeds = speeds
        self._flights = flights

    def standings(self, *, only_here: bool = False) -> list[Standing]:
        here = [standing_here(backend) for backend in self._backends()]
        return here if only_here else here + [standing_elsewhere(one.served) for one in self._remote()]

    def offers(self) -> tuple[ServedOffer, ...]:
        """Of this node's own backends."""
        return tuple(self._served_here(backend) for backend in self._backends())

    def rows(self, now: float) -> list[Row]:
        """Everything that is served in the mesh, this node's own first."""
        here = [
            Row(self._served_here(one), None, THIS_NODE, status_here(one.condition), self._lines.of(one).busy)
            for one in self._backends()
        ]
        elsewhere = [
            Row(
                one.served,
                one.node,
                one.node_name,
                status_elsewhere(one.served),
                self._flights.busy(one, now),
            )
            for one in self._remote()
        ]
        return here + elsewhere

    def servers(self, model: str, now: float, *, only_here: bool = False) -> list[Server]:
        """Everybody who serves a model of this name, ready or not; this node first."""
        named = [backend for backend in self._backends() if backend.model.name == model]
        here = [Server(self._place_here(backend, number), backend) for number, backend in enumerate(named)]
        if only_here:
            return here
        elsewhere = [one for one in self._remote() if one.served.offer.name == model]
        return here + [Server(self._place_elsewhere(one, now), one) for one in elsewhere]

    def _remote(self) -> Sequence[RemoteServer]:
        return self._mesh.servers() if self._mesh is not None else ()

    def _served_here(self, backend: Backend) -> ServedOffer:
        offer: ModelOffer = offer_of(backend.model)
        ready = isinstance(backend.condition, Ready)
        return ServedOffer(offer, ready, self._speeds.of(offer.name))

    def _place_here(self, backend: Backend, number: int) -> Place:
        busy = self._lines.of(backend).busy
        return Place(f"{HERE} {number}", True, self._served_here(backend), busy)

    def _place_elsewhere(self, server: RemoteServer, now: float) -> Place:
        return Place(server.node, False, server.served, self._flights.busy(server, now))
