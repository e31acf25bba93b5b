"""What others say of a model's origin is used with care: this node's hub only, and the same files only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256

import pytest

from mesh_llm.core.errors import DownloadFailed, RequestRefused
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.origin_ranges import OriginPart, OriginRanges
from mesh_llm.models.web import Web
from tests.models.conftest import Journey
from tests.models.hub_server import COMMIT, HubServer

KEYS = ("org/repo/m-00001-of-00002.gguf", "org/repo/m-00002-of-00002.gguf")
CONTENTS = (b"first" * 1000, b"second" * 1000)


def told(hub: HubServer) -> list[OriginPart]:
    """As a leader would, who fetched them there."""
    return [
        OriginPart(
            f"{hub.url}/org/repo/resolve/{COMMIT}/{key.rpartition('/')[2]}",
            len(data),
            sha256(data).hexdigest(),
        )
        for key, data in zip(KEYS, CONTENTS, strict=True)
    ]


@asynccontextmanager
async def opened(
    hub: HubServer, places: ModelPlaces, journey: Journey, parts: list[OriginPart]
) -> AsyncIterator[OriginRanges]:
    hub.files |= dict(zip(KEYS, CONTENTS, strict=True))
    async with asyncio.timeout(30), Web(places) as web:
        yield OriginRanges(parts, web, places.endpoint, journey.sleep)


async def test_ranges_come_from_the_hub_which_is_asked_when_the_first_is_read(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    async with opened(hub, places, journey, told(hub)) as source:
        assert not hub.seen
        assert await source.read(1, 10, 600) == CONTENTS[1][10:610]
        assert await source.read(0, 0, 5) == b"first"
        assert hub.bytes_sent == 605


@pytest.mark.parametrize("change", [{"size": 17}, {"sha256": "0" * 64}])
async def test_a_file_that_is_another_one_is_not_read(
    hub: HubServer, places: ModelPlaces, journey: Journey, change: dict[str, object]
) -> None:
    parts = told(hub)
    parts[1] = replace(parts[1], **change)  # type: ignore[arg-type]
    async with opened(hub, places, journey, parts) as source:
        with pytest.raises(DownloadFailed, match="another file"):
            await source.read(0, 0, 5)
        assert hub.bytes_sent == 0


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data/x.gguf", "http://127.0.0.1:1/a/b/resolve/main/c.gguf"]
)
async def test_no_other_server_is_ever_asked(
    hub: HubServer, places: ModelPlaces, journey: Journey, url: str
) -> None:
    with pytest.raises(RequestRefused):
        async with opened(hub, places, journey, [OriginPart(url, 5)]):
            pytest.fail("it was taken")
