"""A hub on this machine, an empty store, and what was reported and waited for on the way."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh_llm.core.progress import Progress
from mesh_llm.models.places import ModelPlaces
from tests.models.hub_server import HubServer


@dataclass
class Journey:
    """What somebody sees who waits for a model."""

    reports: list[Progress] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    paused: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)
        self.reported.set()

    async def sleep(self, seconds: float) -> None:
        """Takes no time, but lets others run."""
        self.pauses.append(seconds)
        self.paused.set()
        await asyncio.sleep(0)

    def never_went_back(self) -> bool:
        done = [each.done for each in self.reports]
        return done == sorted(done) and self.reports[-1].done == self.reports[-1].total


@pytest.fixture
def journey() -> Journey:
    return Journey()


@pytest.fixture
async def hub() -> AsyncIterator[HubServer]:
    async with HubServer() as server:
        yield server


@pytest.fixture
def places(tmp_path: Path, hub: HubServer) -> ModelPlaces:
    return places_at(tmp_path, hub.url)


def places_at(folder: Path, endpoint: str, token: str | None = None) -> ModelPlaces:
    return ModelPlaces(
        store=folder / "store",
        hub_cache=folder / "cache",
        own_catalogue=folder / "catalogue.toml",
        endpoint=endpoint,
        token=token,
    )
