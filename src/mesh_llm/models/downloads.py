"""All files of one model together: space first, a few at once, one process at a time, one progress.

Counterparts: `obtain.py` says which files, `transfer.py` fetches each, `records.py` remembers what came.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.progress import Progress, Report
from mesh_llm.models.disk import FreeBytes, check_space, free_bytes, make_folder
from mesh_llm.models.hub import Hub
from mesh_llm.models.locks import alone
from mesh_llm.models.part_file import bytes_here
from mesh_llm.models.patience import Sleep
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Identity, Record, Records
from mesh_llm.models.transfer import Transfer, Wanted
from mesh_llm.models.web import Web
from mesh_llm.runtime.tasks import first_fault

AT_ONCE_MAX = 4
"""Storage behind the hub gives each connection some 50 MB/s; more than four only wear out home routers."""


class Meter:
    """Adds up what several files report, and never goes back."""

    def __init__(self, report: Report, subject: str, total: int | None) -> None:
        self._report = report
        self._subject = subject
        self._total = total
        self._done: dict[Path, int] = {}
        self._shown = -1

    def advance(self, file: Path, done: int) -> None:
        self._done[file] = done
        self._show(sum(self._done.values()))

    def finish(self) -> None:
        """The last report: all of it."""
        everything = self._total if self._total is not None else sum(self._done.values())
        self._total, self._shown = everything, min(self._shown, everything - 1)
        self._show(everything)

    def _show(self, done: int) -> None:
        done = done if self._total is None else min(done, self._total)
        if done > self._shown:
            self._shown = done
            self._report(Progress("download", self._subject, done, self._total))


@dataclass(frozen=True, slots=True)
class Downloads:
    """`fetch` brings files here; the session and the pauses are its owner's."""

    places: ModelPlaces
    web: Web
    hub: Hub
    report: Report
    sleep: Sleep = asyncio.sleep
    free: FreeBytes = free_bytes

    async def fetch(self, subject: str, wanted: Sequence[Wanted]) -> None:
        """Until all are here, verified and remembered. Raises DownloadFailed and DiskFull.

        Whatever ends it, finished files stay and the others go on from their `.part` the next time.
        """
        self._check_space(subject, wanted)
        sizes = [each.remote.bytes for each in wanted]
        meter = Meter(self.report, subject, None if None in sizes else sum(size or 0 for size in sizes))
        turns = asyncio.Semaphore(AT_ONCE_MAX)
        with first_fault():
            async with asyncio.TaskGroup() as tasks:
                for each in wanted:
                    name = f"download {each.target.name}"
                    tasks.create_task(self._one(each, meter, turns), name=name)
        meter.finish()

    async def _one(self, wanted: Wanted, meter: Meter, turns: asyncio.Semaphore) -> None:
        target = wanted.target

        def advance(done: int) -> None:
            meter.advance(target, done)

        def waiting() -> None:
            advance(bytes_here(target))

        async with turns, alone(self.places, target, waiting, self.sleep):
            if not target.exists():
                sha256 = await Transfer(self.web, self.hub, wanted, advance, self.sleep).run()
                records = Records(self.places.notes, self.places.store)
                records.write(target, Record(sha256, Identity.of(target), wanted.remote.url))
            advance(target.stat().st_size)

    def _check_space(self, subject: str, wanted: Sequence[Wanted]) -> None:
        make_folder(self.places.store)
        for folder in {each.target.parent for each in wanted}:
            make_folder(folder)
        needed = sum(max(0, (each.remote.bytes or 0) - bytes_here(each.target)) for each in wanted)
        check_space(self.places.store, needed, subject, self.free)
