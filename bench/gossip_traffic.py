"""What it costs to know one another: bytes and messages of each node a minute, in simulated meshes.

    python -m bench.gossip_traffic            10, 100 and 300 nodes; prints the table of docs/benchmarks.md

A mesh settles first (the full exchange); then calm minutes are measured, and minutes in which adverts change.
Bytes are those of encoded messages and frames; QUIC and UDP add about 60 to each datagram.
"""

import argparse
import sys
import time
from dataclasses import dataclass

from tests.simulation.mesh import SimulatedMesh

SEED = 1
MINUTES = 3


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one node in one minute."""

    messages: float
    bytes: float
    adverts: float
    """Bytes of fetched adverts, and of asking for them."""
    views: float
    """Bytes of full exchanges."""

    def __str__(self) -> str:
        gossip = self.bytes - self.adverts - self.views
        figures = (self.messages, self.bytes, gossip, self.adverts, self.views)
        return "".join(f"| {figure:,.0f} " for figure in figures) + "|"


def settled(count: int) -> SimulatedMesh:
    """Each joins through one of those before it."""
    mesh = SimulatedMesh(SEED)
    mesh.boot("n0")
    for place in range(1, count):
        mesh.world.run_for(0.05)
        mesh.boot(f"n{place}", f"n{mesh.world.chance.randrange(place)}")
    mesh.world.run_until(mesh.agrees, within=300)
    mesh.world.run_for(30)
    return mesh


def measured(mesh: SimulatedMesh, changes: int) -> Traffic:
    """`changes`: adverts that change in a minute."""
    mesh.sent.clear()
    names = sorted(mesh.nodes)
    for minute in range(MINUTES):
        for place in range(changes):
            mesh.world.run_for(60 / changes)
            mesh.change(mesh.world.chance.choice(names), f"Model-{minute}-{place}")
        if not changes:
            mesh.world.run_for(60)
    share = len(names) * MINUTES
    adverts = mesh.sent["SignedAdvert"] + mesh.sent["AdvertsWanted"]
    return Traffic(
        mesh.sent["messages"] / share, mesh.sent["bytes"] / share, adverts / share, mesh.sent["View"] / share
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 300])
    counts = parser.parse_args().nodes
    print("| nodes | changes a minute | messages | bytes | of these gossip | adverts | full exchanges |")
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        began = time.perf_counter()
        mesh = settled(count)
        for changes in (0, 1, count // 10):
            traffic = measured(mesh, changes)
            print(f"| {count} | {changes} {traffic}", flush=True)
        seconds = time.perf_counter() - began
        print(f"{count} nodes: {mesh.world.now:.0f} s simulated in {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
