"""Is a file still the one that was fetched? Asked before use, answered without reading it where possible.

Counterpart: `records.py`, which remembers. A file that looks as it did when its checksum was last seen to be
right costs one `stat`; one that has changed since, or was never looked at, is read once.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.progress import Progress, Report
from mesh_llm.models.hashing import sha256_of
from mesh_llm.models.records import Identity, Record, Records

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file whose SHA-256 somebody has told us."""

    path: Path
    sha256: str
    source: str
    """Who says so; for people."""
    identity: Identity | None
    """What it looked like when that was last seen to be true."""


def known_file(path: Path, records: Records, told: str | None) -> KnownFile | None:
    """What is known of `path`: from our record, from `told`, or from its name in the hub's cache."""
    record = records.read(path)
    if record is not None:
        return KnownFile(path, record.sha256, record.origin, record.identity)
    if told is not None:
        return KnownFile(path, told, "the catalogue", None)
    blob = path.resolve()
    if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return KnownFile(path, blob.name, "the Hugging Face cache", None)
    return None


async def verify(subject: str, known: list[KnownFile], records: Records, report: Report) -> None:
    """Reads those that need it. Raises ModelDamaged."""
    doubtful = [each for each in known if each.identity != Identity.of(each.path)]
    total = sum(each.path.stat().st_size for each in doubtful)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(Progress("verify", subject, min(done, total), total))

    for each in doubtful:
        identity = Identity.of(each.path)
        found = (await sha256_of(each.path, advance)).hexdigest()
        if found != each.sha256:
            raise _damaged(each, found, records)
        records.write(each.path, Record(found, identity, each.source))


def _damaged(known: KnownFile, found: str, records: Records) -> ModelDamaged:
    record = records.place(known.path)
    mine = f" If you changed it yourself, delete {record} instead." if record.exists() else ""
    return ModelDamaged(
        f"{known.path} is damaged: its SHA-256 should be {known.sha256} ({known.source}) and is {found}. "
        f"Delete the file and download the model again.{mine}"
    )
