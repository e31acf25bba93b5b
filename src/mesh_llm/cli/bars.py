"""Progress as bars on a terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from mesh_llm.cli.progress import VERBS
from mesh_llm.core.progress import Progress


class BarDisplay:
    """A bar for each piece of work, on standard error; log lines appear above them."""

    def __init__(self) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    @property
    def under_way(self) -> set[tuple[str, str]]:
        """The (activity, subject) of each bar that is shown."""
        return set(self._tasks)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, progress: Progress) -> None:
        work = (progress.activity, progress.subject)
        if work not in self._tasks:
            self._tasks[work] = self._bars.add_task(f"{VERBS[progress.activity]} {progress.subject}")
        task = self._tasks[work]
        self._bars.update(task, completed=progress.done, total=progress.total)
        if progress.done == progress.total:
            self._bars.remove_task(task)
            del self._tasks[work]
