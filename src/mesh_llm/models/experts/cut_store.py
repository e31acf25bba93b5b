"""Cuts of experts kept on this disk: by the model's identity, the ranking, and which experts they have.

Counterparts: `layout.py` says what a cut holds, `stages/made_files.py` makes, locks and prunes it. A cut is
taken for what its own header and its seal say: one of another model, ranking or choice, or altered, is made
anew, whatever its name.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import Kept
from mesh_llm.core.progress import Report, ignore
from mesh_llm.models.experts.layout import Origin, cut_layout
from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.locks import alone
from mesh_llm.models.stages.made_files import MadeFiles
from mesh_llm.models.stages.ranges import RangeSource
from mesh_llm.models.threads import run_to_end

DIGEST_DIGITS_IN_NAME = 16
"""64 bits tell rankings and choices apart; the header has all digits."""

RANKING_FILE = "ranking.json"
REFERENCE_FILE = "reference"


class CutStore(MadeFiles):
    def place(self, identity: str, ranking_digest: str, kept: Kept) -> Path:
        """Raises RequestRefused where `identity` or `ranking_digest`, which others may have said, is none."""
        folder = self.folder_of("cut", identity)
        if not _is_digest(ranking_digest):
            raise RequestRefused(
                f"{ranking_digest[:20]!r} is no digest of a ranking: rank the model's experts again."
            )
        names = (f"{kept.count}", *(each[:DIGEST_DIGITS_IN_NAME] for each in (ranking_digest, kept.digest)))
        return folder / f"{'-'.join(names)}.gguf"

    def ranking_path(self, identity: str) -> Path:
        """Of the ranking of the model's experts, beside its cuts. Raises RequestRefused."""
        return self.folder_of("cut", identity) / RANKING_FILE

    def reference_path(self, identity: str) -> Path:
        """Of what the whole model says of the held-out text. Raises RequestRefused."""
        return self.folder_of("cut", identity) / REFERENCE_FILE

    def quality_path(self, identity: str, ranking_digest: str, kept: Kept) -> Path:
        """Of what is known of a cut, beside it, whether or not that is here. Raises RequestRefused."""
        return self.place(identity, ranking_digest, kept).with_suffix(".quality.json")

    @asynccontextmanager
    async def measuring(self, identity: str, waiting: Callable[[], None]) -> AsyncGenerator[None]:
        """No other process measures this model on this disk meanwhile: what they write down is shared.
        `waiting` is called while one does. Raises RequestRefused, DiskFull."""
        target = self.reference_path(identity)
        async with alone(self._places, target, waiting, self._sleep, doing="measuring"):
            yield

    @asynccontextmanager
    async def cut(
        self,
        identity: str,
        ranking_digest: str,
        kept: Kept,
        parts: Sequence[Header],
        source: RangeSource,
        report: Report = ignore,
    ) -> AsyncGenerator[Path]:
        """The file of a cut, written first where it is not here; nobody prunes it meanwhile.

        `identity`: 8 to 128 hex digits that stand for the model's files. Raises RequestRefused, ModelDamaged,
        DiskFull, and what the source raises.
        """
        target = self.place(identity, ranking_digest, kept)
        layout = await run_to_end(cut_layout, parts, kept, Origin(identity, ranking_digest))
        async with self.file(target, layout, source, identity, report) as file:
            yield file


def _is_digest(text: str) -> bool:
    return DIGEST_DIGITS_IN_NAME <= len(text) <= 128 and set(text) <= set("0123456789abcdef")
