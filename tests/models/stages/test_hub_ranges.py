"""Ranges from a hub that breaks, lies and changes its mind."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh_llm.core.errors import DownloadFailed
from mesh_llm.models.hub import Hub
from mesh_llm.models.patience import FAILURES_MAX
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.references import HubFile
from mesh_llm.models.stages.hub_ranges import HubRanges
from mesh_llm.models.web import Web
from tests.models.conftest import Journey
from tests.models.hub_server import Fault, HubServer

KEYS = ("org/repo/m-00001-of-00002.gguf", "org/repo/m-00002-of-00002.gguf")
FILES = [HubFile("org/repo", key.removeprefix("org/repo/")) for key in KEYS]
CONTENTS = [random.Random(seed).randbytes(300_000) for seed in range(2)]


@asynccontextmanager
async def opened(hub: HubServer, places: ModelPlaces, journey: Journey) -> AsyncIterator[HubRanges]:
    hub.files |= dict(zip(KEYS, CONTENTS, strict=True))
    async with asyncio.timeout(30), Web(places) as web:
        yield await HubRanges.open(web, Hub(web, places.endpoint), FILES, hub.url, journey.sleep)


async def test_a_range_of_any_part_is_exactly_these_bytes(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey) as source:
        assert [part.size for part in source.parts] == [300_000, 300_000]
        hub.bytes_sent = 0
        assert await source.read(1, 1000, 5000) == CONTENTS[1][1000:6000]
        assert await source.read(0, 299_999, 1) == CONTENTS[0][-1:]
        assert hub.bytes_sent == 5001
        with pytest.raises(ValueError, match="300000"):
            await source.read(0, 299_999, 2)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=429, retry_after="7"),
        Fault(ends_after=100_000),
        Fault(ends_after=100_000, chunked=True),
        Fault(surplus=10, chunked=True),
        Fault(start_shift=-5),
    ],
)
async def test_what_goes_wrong_once_is_tried_again(
    hub: HubServer, places: ModelPlaces, journey: Journey, fault: Fault
) -> None:
    async with opened(hub, places, journey) as source:
        hub.faults.append(fault)
        assert await source.read(0, 1000, 250_000) == CONTENTS[0][1000:251_000]
        assert len(journey.pauses) == 1


async def test_bytes_that_came_are_not_asked_for_again(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey) as source:
        hub.faults.extend([Fault(ends_after=100_000), Fault(ends_after=50_000)])
        await source.read(0, 0, 250_000)
        asked = [request.headers["range"] for request in hub.requests()]
        starts = [int(each.removeprefix("bytes=").partition("-")[0]) for each in asked]
        assert starts == sorted(set(starts)) and all(each.endswith("-249999") for each in asked)


async def test_a_hub_that_never_answers_is_given_up_on(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey) as source:
        hub.faults.extend([Fault(status=503)] * 20)
        with pytest.raises(DownloadFailed, match="given up after"):
            await source.read(0, 0, 10)
        assert len(journey.pauses) == FAILURES_MAX


async def test_a_server_that_ignores_ranges_is_refused(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey) as source:
        hub.faults.append(Fault(ignores_range=True))
        with pytest.raises(DownloadFailed, match="sends whole files only"):
            await source.read(0, 1000, 10)
        assert not journey.pauses


@pytest.mark.parametrize("other", [CONTENTS[1], CONTENTS[0][:500], CONTENTS[0] + b"more"])
@pytest.mark.parametrize("ignores_condition", [False, True])
async def test_a_file_that_changed_is_refused(
    hub: HubServer, places: ModelPlaces, journey: Journey, other: bytes, ignores_condition: bool
) -> None:
    hub.is_hub = False  # a real hub names the very bytes
    async with opened(hub, places, journey) as source:
        hub.faults.append(Fault(replaces_with=other, ignores_condition=ignores_condition))
        with pytest.raises(DownloadFailed, match="has changed since"):
            await source.read(0, 1000, 10)


async def test_a_total_that_is_not_the_promised_one_is_refused(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey) as source:
        hub.faults.append(Fault(total_lie=1))
        with pytest.raises(DownloadFailed, match="has changed since"):
            await source.read(0, 1000, 10)


async def test_a_file_of_unknown_length_cannot_be_read_in_parts(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.is_hub = hub.has_length = False
    with pytest.raises(DownloadFailed, match="does not say how long it is"):
        async with opened(hub, places, journey):
            pass


async def test_what_is_not_given_is_told_as_for_downloads(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey) as source:
        hub.faults.append(Fault(status=403))
        with pytest.raises(DownloadFailed, match="HF_TOKEN"):
            await source.read(0, 1000, 10)
