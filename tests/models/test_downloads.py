"""Files from a server that breaks, lies and changes its mind."""

import asyncio
import hashlib
import json
import logging
import os
import random
import resource
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_llm.core.errors import DiskFull, DownloadFailed
from mesh_llm.core.progress import ignore
from mesh_llm.models.disk import RESERVE_BYTES
from mesh_llm.models.fetching import HubRequest, fetch_from_hub
from mesh_llm.models.patience import FAILURES_MAX, PAUSE_S_MAX
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Identity, Records
from mesh_llm.models.references import HubFile, HubRepository
from mesh_llm.models.transfer import RESTARTS_MAX
from tests.models.conftest import Journey, places_at
from tests.models.hub_server import Fault, HubServer
from tests.models.model_files import model_bytes, split_model_bytes

KEY = "org/repo/m-Q4_K_M.gguf"
FILE = HubFile("org/repo", "m-Q4_K_M.gguf")
CONTENT = model_bytes(3_000_000)
LOST_MAX = 512 * 1024
"""Of bytes that came, when a connection breaks: what waits in the HTTP library and the kernel."""
OTHER = model_bytes(3_000_000, seed=1)


async def fetch(
    hub: HubServer, places: ModelPlaces, journey: Journey, meant: HubFile | HubRepository = FILE
) -> HubFile:
    hub.files.setdefault(KEY, CONTENT)
    async with asyncio.timeout(30):
        return await fetch_from_hub(HubRequest(meant), places, journey.report, journey.sleep)


def target(places: ModelPlaces) -> Path:
    return places.store / KEY


def part(places: ModelPlaces) -> Path:
    return places.store / f"{KEY}.part"


def leftovers(places: ModelPlaces) -> list[str]:
    return sorted(path.name for path in places.store.rglob("*.part*"))


def ranges(hub: HubServer, path: str = "/blob/") -> list[str | None]:
    return [request.headers.get("range") for request in hub.requests("GET", path)]


def begin(asked: str | None) -> int:
    assert asked is not None
    return int(asked.removeprefix("bytes=").removesuffix("-"))


async def test_a_file_arrives_whole_with_its_progress_and_its_record(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    assert await fetch(hub, places, journey) == FILE
    assert target(places).read_bytes() == CONTENT
    assert leftovers(places) == []
    assert journey.never_went_back() and len(journey.reports) > 2 and journey.pauses == []
    assert {(each.activity, each.subject) for each in journey.reports} == {("download", "m-Q4_K_M")}
    record = Records(places.notes, places.store).read(target(places))
    assert record is not None and record.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert record.identity == Identity.of(target(places))


async def test_the_bytes_are_asked_for_at_the_commit_that_was_described(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    await fetch(hub, places, journey)
    assert hub.requests("GET", "/resolve/c0ffee")


@pytest.mark.parametrize("is_hub", [True, False])
async def test_a_broken_transfer_goes_on_where_it_stopped(
    hub: HubServer, places: ModelPlaces, journey: Journey, is_hub: bool
) -> None:
    hub.is_hub = is_hub
    hub.faults.extend([Fault(ends_after=1_500_000), Fault(ends_after=700_000)])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    first, second, third = ranges(hub, "/blob/" if is_hub else "/resolve/")
    assert first is None
    assert 1_500_000 - LOST_MAX <= begin(second) <= 1_500_000
    assert begin(second) + 700_000 - LOST_MAX <= begin(third) <= begin(second) + 700_000
    assert journey.pauses == [1.0, 1.0]  # each byte forgives the failure before it
    assert journey.never_went_back()


async def test_a_clean_end_before_the_last_byte_is_no_complete_file(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000, chunked=True))
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    first, second = ranges(hub)
    assert first is None and 1_000_000 - LOST_MAX <= begin(second) <= 1_000_000


async def test_a_server_that_ignores_ranges_is_not_appended_to(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.extend([Fault(ends_after=1_000_000), Fault(ignores_range=True)])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert journey.never_went_back()


@pytest.mark.parametrize(
    "lie",
    [
        Fault(length_lie=5_000),
        Fault(length_lie=-5_000),
        Fault(surplus=5_000, chunked=True),
        Fault(surplus=5_000, length_lie=5_000),
    ],
    ids=str,
)
async def test_a_length_that_is_a_lie_is_noticed_and_tried_again(
    hub: HubServer, places: ModelPlaces, journey: Journey, lie: Fault
) -> None:
    hub.faults.append(lie)
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert journey.pauses == [1.0]


@pytest.mark.parametrize("is_hub", [True, False])
@pytest.mark.parametrize("lie", [Fault(start_shift=-1000), Fault(start_shift=7), Fault(total_lie=1)], ids=str)
async def test_a_part_that_is_not_the_one_asked_for_is_not_appended(
    hub: HubServer, places: ModelPlaces, journey: Journey, lie: Fault, is_hub: bool
) -> None:
    hub.is_hub = is_hub
    hub.faults.extend([Fault(ends_after=1_000_000), lie])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert len(journey.pauses) == 2  # the break and the lie


async def test_a_server_that_always_lies_is_given_up_on(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.extend([Fault(surplus=1, chunked=True)] * 100)
    with pytest.raises(DownloadFailed, match=r"sends more|cannot continue"):
        await fetch(hub, places, journey)
    assert len(hub.requests()) <= FAILURES_MAX + 1
    assert not target(places).exists()


async def test_bytes_that_are_not_those_published_are_fetched_anew_once_more(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(flipped_at=1_234_567))
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert ranges(hub) == [None, None]


async def test_a_file_that_never_matches_what_is_published_is_refused(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.publishes[KEY] = "0" * 64
    with pytest.raises(DownloadFailed, match=r"SHA-256.*proxy or mirror"):
        await fetch(hub, places, journey)
    assert len(hub.requests()) == RESTARTS_MAX + 1
    assert not target(places).exists()


async def test_a_file_replaced_between_two_tries_is_not_glued_to_the_old_one(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.is_hub = False
    hub.faults.extend([Fault(ends_after=1_000_000), Fault(replaces_with=OTHER)])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == OTHER


async def test_a_replacement_of_another_size_is_fetched_whole(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.is_hub = False
    longer = model_bytes(3_500_000, seed=2)
    hub.faults.extend([Fault(ends_after=1_000_000), Fault(replaces_with=longer, ends_after=1_200_000)])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == longer


async def test_a_part_of_another_version_is_refused_although_the_server_gives_it(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    """A server that knows ETags and does not look at If-Range."""
    hub.is_hub = False
    ignoring = Fault(replaces_with=OTHER, ignores_condition=True)
    hub.faults.extend([Fault(ends_after=1_000_000), ignoring])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == OTHER


async def test_without_any_validator_a_broken_download_begins_anew(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.is_hub = hub.has_etag = False
    hub.faults.append(Fault(ends_after=1_000_000))
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert ranges(hub, "/resolve/") == [None, None]


async def test_without_any_length_the_end_of_the_answer_is_the_end_of_the_file(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.is_hub = hub.has_length = False
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert [each.total for each in journey.reports[:-1]] == [None] * (len(journey.reports) - 1)
    assert journey.never_went_back()


@pytest.mark.parametrize("is_hub", [True, False])
async def test_a_part_longer_than_the_file_is_thrown_away(
    hub: HubServer, places: ModelPlaces, journey: Journey, is_hub: bool
) -> None:
    hub.is_hub = is_hub
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    with part(places).open("ab") as file:
        file.write(bytes(5_000_000))
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT


async def test_a_file_that_shrank_at_its_origin_answers_416_and_begins_anew(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.is_hub = False
    shorter = model_bytes(500_000, seed=3)
    gone = Fault(replaces_with=shorter, ignores_condition=True)
    hub.faults.extend([Fault(ends_after=1_000_000), gone])
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == shorter


async def interrupted(hub: HubServer, places: ModelPlaces, journey: Journey, status: int = 503) -> None:
    """A first attempt that ends with what the faults let through."""
    hub.faults.extend([Fault(status=status)] * FAILURES_MAX)
    with pytest.raises(DownloadFailed, match="given up after 9 tries"):
        await fetch(hub, places, journey)
    hub.faults.clear()
    hub.seen.clear()


async def test_a_second_run_continues_what_the_first_one_left(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    kept = part(places).read_bytes()
    assert kept == CONTENT[: len(kept)] and len(kept) >= 1_000_000 - LOST_MAX
    await fetch(hub, places, journey)
    assert ranges(hub) == [f"bytes={len(kept)}-"]
    assert target(places).read_bytes() == CONTENT


async def test_a_part_without_its_note_is_worth_nothing(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    part(places).with_name(part(places).name + ".json").unlink()
    await fetch(hub, places, journey)
    assert ranges(hub) == [None]
    assert target(places).read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "[]", "{", '{"url": 1, "bytes": "x"}', "\x00"])
async def test_a_note_that_makes_no_sense_is_no_note(
    hub: HubServer, places: ModelPlaces, journey: Journey, note: str
) -> None:
    hub.files[KEY] = CONTENT
    part(places).parent.mkdir(parents=True)
    part(places).write_bytes(b"garbage")
    part(places).with_name(part(places).name + ".json").write_text(note, encoding="utf-8")
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT


@pytest.mark.parametrize("is_hub", [True, False])
async def test_a_part_of_what_has_been_replaced_since_is_not_continued(
    hub: HubServer, places: ModelPlaces, journey: Journey, is_hub: bool
) -> None:
    hub.is_hub = is_hub
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    hub.files[KEY] = OTHER
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == OTHER


async def test_a_whole_part_is_checked_and_named_without_another_byte(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    part(places).write_bytes(CONTENT)
    await fetch(hub, places, journey)
    assert hub.requests() == []
    assert target(places).read_bytes() == CONTENT


async def test_a_part_with_wrong_bytes_is_found_out_at_the_end_and_fetched_anew(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    damaged = bytearray(part(places).read_bytes())
    damaged[300_000] ^= 1
    part(places).write_bytes(damaged)
    await fetch(hub, places, journey)
    assert ranges(hub) == [f"bytes={len(damaged)}-", None]
    assert target(places).read_bytes() == CONTENT


@settings(max_examples=25, deadline=None)
@given(
    faults=st.lists(
        st.builds(
            Fault,
            ends_after=st.none() | st.integers(0, 300_000),
            chunked=st.booleans(),
            length_lie=st.sampled_from([0, 0, 0, 7, -7]),
            start_shift=st.sampled_from([0, 0, 0, 5, -5]),
            ignores_range=st.sampled_from([False, False, True]),
            flipped_at=st.none() | st.none() | st.integers(0, 10),
            status=st.sampled_from([None, None, None, None, 500, 429]),
        ),
        max_size=6,
    )
)
async def test_whatever_goes_wrong_the_file_is_right_or_absent(
    tmp_path_factory: pytest.TempPathFactory, faults: list[Fault]
) -> None:
    content = model_bytes(300_000)
    async with HubServer({KEY: content}) as hub:
        hub.faults.extend(faults)
        places, journey = places_at(tmp_path_factory.mktemp("store"), hub.url), Journey()
        try:
            await fetch(hub, places, journey)
        except DownloadFailed:
            assert not target(places).exists()
        else:
            assert target(places).read_bytes() == content
            assert journey.never_went_back()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "no org/repo at|no file m-Q4_K_M"),
        (404, "RevisionNotFound", "no such revision"),
        (401, "GatedRepo", "accept them at http://.*/org/repo, then set HF_TOKEN"),
        (401, "RepoNotFound", "private, gated or does not exist.*HF_TOKEN"),
        (403, "GatedRepo", "accept them at"),
        (410, "", "HTTP 410"),
        (400, "", "HTTP 400"),
    ],
)
async def test_a_refusal_is_final_and_says_what_helps(
    hub: HubServer, places: ModelPlaces, journey: Journey, status: int, code: str, said: str
) -> None:
    hub.refuses["org/repo"] = (status, code)
    with pytest.raises(DownloadFailed, match=said):
        await fetch(hub, places, journey)
    assert journey.pauses == []
    assert len(hub.seen) == 2  # the listing and the file, each once


async def test_a_refusal_of_a_token_says_so(hub: HubServer, tmp_path: Path, journey: Journey) -> None:
    hub.refuses["org/repo"] = (401, "RepoNotFound")
    with pytest.raises(DownloadFailed, match="the token is not allowed"):
        await fetch(hub, places_at(tmp_path, hub.url, token="hf_x"), journey)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_an_answer_that_means_later_is_tried_again_with_growing_pauses(
    hub: HubServer, places: ModelPlaces, journey: Journey, status: int
) -> None:
    hub.faults.extend([Fault(status=status)] * 4)
    await fetch(hub, places, journey)
    assert journey.pauses == [1.0, 2.0, 4.0, 8.0]
    assert target(places).read_bytes() == CONTENT


async def test_a_pause_that_the_server_asks_for_is_kept_within_bounds(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.extend([Fault(status=429, retry_after="17"), Fault(status=429, retry_after="99999")])
    hub.faults.append(Fault(status=503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))
    await fetch(hub, places, journey)
    assert journey.pauses == [17.0, PAUSE_S_MAX, 4.0]


async def test_a_server_that_never_recovers_is_given_up_on_and_the_part_is_kept(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    assert 1_000_000 - LOST_MAX <= part(places).stat().st_size <= 1_000_000
    assert max(journey.pauses) == PAUSE_S_MAX


async def test_a_hub_that_is_busy_at_first_is_asked_again(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.hub_failures = 2
    await fetch(hub, places, journey)
    assert journey.pauses == [1.0, 2.0]


async def test_a_hub_that_cannot_be_reached_is_named_with_the_cure(tmp_path: Path, journey: Journey) -> None:
    async with HubServer() as gone:
        places = places_at(tmp_path, gone.url)
    with pytest.raises(DownloadFailed, match=r"cannot be reached.*network.*HF_ENDPOINT"):
        await fetch(gone, places, journey)
    assert len(journey.pauses) == 2 * (FAILURES_MAX - 1)


async def test_the_token_is_sent_to_the_hub_and_to_nobody_else(
    hub: HubServer, tmp_path: Path, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1000))
    await fetch(hub, places_at(tmp_path, hub.url, token="hf_secret"), journey)
    sent = {
        server: {each.headers.get("authorization") for each in hub.seen if each.server == server}
        for server in ("hub", "storage")
    }
    assert sent == {"hub": {"Bearer hf_secret"}, "storage": {None}}


@pytest.mark.parametrize(
    "elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/org/repo/resolve/main/m-Q4_K_M.gguf"]
)
async def test_a_redirect_that_leads_nowhere_is_refused(
    hub: HubServer, places: ModelPlaces, journey: Journey, elsewhere: str
) -> None:
    hub.redirects_to = elsewhere
    with pytest.raises(DownloadFailed, match=r"HF_ENDPOINT"):
        await fetch(hub, places, journey)


async def test_all_parts_of_a_split_file_come_together_a_few_at_once(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    parts = split_model_bytes(6)
    hub.files = {f"org/repo/Q4/m-Q4_K_M-{n:05d}-of-00006.gguf": data for n, data in enumerate(parts, 1)}
    hub.faults.append(Fault(ends_after=10_000))
    got = await fetch_from_hub(
        HubRequest(HubFile("org/repo", "Q4/m-Q4_K_M-00003-of-00006.gguf")),
        places,
        journey.report,
        journey.sleep,
    )
    assert got.path == "Q4/m-Q4_K_M-00001-of-00006.gguf"
    for name, data in hub.files.items():
        assert (places.store / name).read_bytes() == data
    assert journey.never_went_back()
    assert journey.reports[-1].total == sum(map(len, parts))


async def test_one_lost_part_loses_none_of_the_others(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    parts = split_model_bytes(3)
    hub.files = {f"org/repo/m-{n:05d}-of-00003.gguf": data for n, data in enumerate(parts, 1)}
    hub.publishes["org/repo/m-00002-of-00003.gguf"] = "0" * 64
    request = HubRequest(HubFile("org/repo", "m-00001-of-00003.gguf"))
    with pytest.raises(DownloadFailed, match="m-00002"):
        await fetch_from_hub(request, places, journey.report, journey.sleep)
    hub.publishes.clear()
    await fetch_from_hub(request, places, journey.report, journey.sleep)
    for name, data in hub.files.items():
        assert (places.store / name).read_bytes() == data


async def test_too_little_space_is_said_with_numbers_before_the_first_byte(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files[KEY] = CONTENT

    def little(_: Path) -> int:
        return RESERVE_BYTES + len(CONTENT) - 1

    with pytest.raises(
        DiskFull, match=r"needs 3\.0 MB more in .*store, where 271\.4 MB are free.*MESH_LLM_MODELS"
    ):
        await fetch_from_hub(HubRequest(FILE), places, journey.report, journey.sleep, little)
    assert hub.requests() == []


async def test_only_what_is_missing_must_fit(hub: HubServer, places: ModelPlaces, journey: Journey) -> None:
    hub.faults.append(Fault(ends_after=2_000_000))
    await interrupted(hub, places, journey)

    kept = part(places).stat().st_size

    def just_enough(_: Path) -> int:
        return RESERVE_BYTES + len(CONTENT) - kept

    await fetch_from_hub(HubRequest(FILE), places, journey.report, journey.sleep, just_enough)
    assert target(places).read_bytes() == CONTENT


async def test_a_disk_that_fills_up_ends_with_its_name_and_keeps_what_came(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    """A limit on the size of files is the full disk that every machine has."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_234_567, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"m-Q4_K_M\.gguf\.part.*MESH_LLM_MODELS"):
            await fetch(hub, places, journey)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert part(places).read_bytes() == CONTENT[:1_234_567]
    hub.seen.clear()
    await fetch(hub, places, journey)
    assert ranges(hub) == ["bytes=1234567-"]
    assert target(places).read_bytes() == CONTENT


async def test_a_store_that_cannot_be_written_is_named(
    hub: HubServer, tmp_path: Path, journey: Journey
) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(DiskFull, match=r"store.*cannot be written.*MESH_LLM_MODELS"):
        await fetch(hub, places_at(tmp_path, hub.url), journey)


async def test_cancelling_leaves_a_part_that_can_be_continued(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(holds_after=1_700_000))
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fetch(hub, places, journey))
        await hub.holding.wait()
        await journey.reported.wait()
        task.cancel()
    kept = part(places).read_bytes()
    assert kept == CONTENT[: len(kept)] and len(kept) >= 1_000_000
    hub.seen.clear()
    await fetch(hub, places, journey)
    assert ranges(hub) == [f"bytes={len(kept)}-"]
    assert target(places).read_bytes() == CONTENT


async def test_two_that_want_the_same_file_fetch_it_once(
    hub: HubServer, places: ModelPlaces, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Journey(), Journey()
    hub.faults.append(Fault(ends_after=1_000_000))
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(fetch(hub, places, first), fetch(hub, places, second))
    assert [asked is None for asked in ranges(hub)] == [True, False]
    assert target(places).read_bytes() == CONTENT
    assert "Another process is downloading" in caplog.text
    assert first.never_went_back() and second.never_went_back()


CHILD = """
import asyncio, sys
from pathlib import Path
from mesh_llm.models.fetching import HubRequest, fetch_from_hub
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.references import HubFile
from mesh_llm.core.progress import ignore
store, endpoint = sys.argv[1:]
places = ModelPlaces(Path(store), Path(store, "none"), Path(store, "none"), endpoint)
asyncio.run(fetch_from_hub(HubRequest(HubFile("org/repo", "m-Q4_K_M.gguf")), places, ignore))
"""


@pytest.mark.parametrize("position", sorted(random.Random(2026).sample(range(len(CONTENT)), 5)))
async def test_a_process_killed_at_any_byte_leaves_a_part_that_another_continues(
    hub: HubServer, places: ModelPlaces, journey: Journey, position: int
) -> None:
    hub.files[KEY] = CONTENT
    hub.faults.append(Fault(holds_after=position))
    arguments = ("-c", CHILD, str(places.store), hub.url)
    async with asyncio.timeout(30):
        child = await asyncio.create_subprocess_exec(sys.executable, *arguments)
        await hub.holding.wait()
        # Killed while it writes: nothing tells how far it has come by now.
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
    kept = part(places).read_bytes()
    assert kept == CONTENT[: len(kept)] and len(kept) <= position
    assert not target(places).exists()
    await fetch(hub, places, journey)
    assert target(places).read_bytes() == CONTENT
    assert leftovers(places) == []


async def test_a_process_waits_for_another_and_takes_over_when_it_is_killed(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.files[KEY] = CONTENT
    hub.faults.append(Fault(holds_after=2_000_000))
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(places.store), hub.url, stdout=asyncio.subprocess.DEVNULL
        )
        await hub.holding.wait()
        task = tasks.create_task(fetch(hub, places, journey))
        await journey.paused.wait()
        assert not task.done()
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
    assert target(places).read_bytes() == CONTENT


async def test_nothing_is_fetched_twice(hub: HubServer, places: ModelPlaces, journey: Journey) -> None:
    await fetch(hub, places, journey)
    hub.seen.clear()
    await fetch(hub, places, journey)
    assert hub.requests() == []


async def test_the_part_and_its_note_say_what_they_are(
    hub: HubServer, places: ModelPlaces, journey: Journey
) -> None:
    hub.faults.append(Fault(ends_after=1_000_000))
    await interrupted(hub, places, journey)
    assert leftovers(places) == ["m-Q4_K_M.gguf.part", "m-Q4_K_M.gguf.part.json"]
    note = json.loads(part(places).with_name(part(places).name + ".json").read_text(encoding="utf-8"))
    assert note["bytes"] == len(CONTENT) and note["sha256"] == hashlib.sha256(CONTENT).hexdigest()


async def test_progress_is_nobodys_duty(hub: HubServer, places: ModelPlaces) -> None:
    hub.files[KEY] = CONTENT
    await fetch_from_hub(HubRequest(FILE), places, ignore)
    assert target(places).read_bytes() == CONTENT
