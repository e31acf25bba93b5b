"""From a model, here or at the hub, to what its leader knows: how it is cut, how others know its bytes."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from mesh_llm.models.gguf.contents import Header
from mesh_llm.models.gguf.header import read_file_header
from mesh_llm.models.gguf.stageable import cuttable
from mesh_llm.models.hub_model import HubModel
from mesh_llm.models.library import LocalModel
from mesh_llm.models.records import Identity, Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.models.stages.ranges import FileRanges
from mesh_llm.models.threads import run_to_end
from mesh_llm.splits.messages import Part
from mesh_llm.splits.split_source import SplitSource

_ORIGIN = re.compile(r"https?://[!-~]{1,2000}")


async def local_source(model: LocalModel, manifests: Manifests, records: Records) -> SplitSource:
    """Reads each file once to know its chunks, the first time; `records` say where the files came from.
    Raises RequestRefused, ModelDamaged."""
    headers = await headers_of(model.files)
    how = cuttable(headers)
    parts = await parts_here(model, manifests, records)
    return SplitSource(
        name=model.name,
        aliases=model.aliases,
        bytes=model.bytes,
        identity=identity_of(parts),
        headers=headers,
        cuttable=how,
        parts=parts,
        ranges=FileRanges(model.files),
        files=model.files,
    )


def remote_source(model: HubModel) -> SplitSource:
    """Of a model that is on no disk here. Raises RequestRefused, ModelDamaged."""
    how = cuttable(model.headers)
    parts = parts_at_hub(model)
    return SplitSource(
        name=model.name,
        aliases=model.aliases,
        bytes=model.bytes,
        identity=identity_of(parts),
        headers=model.headers,
        cuttable=how,
        parts=parts,
        ranges=model.ranges,
    )


async def headers_of(files: Sequence[Path]) -> list[Header]:
    """Raises ModelDamaged."""
    return await run_to_end(_headers, files)


async def parts_here(model: LocalModel, manifests: Manifests, records: Records) -> tuple[Part, ...]:
    """Its files as other nodes are told of them; each is read once to know its chunks, the first time."""
    pairs = zip(model.files, model.sha256, strict=True)
    return tuple([await _part(file, sha256, manifests, records) for file, sha256 in pairs])


def parts_at_hub(model: HubModel) -> tuple[Part, ...]:
    return tuple(
        Part(
            name=part.file.path.rpartition("/")[2],
            size=part.size,
            sha256=part.remote.sha256 or "",
            origin=part.remote.url,
        )
        for part in model.parts
    )


def identity_of(parts: Sequence[Part]) -> str:
    """64 hex digits, the same wherever the files have the same bytes.

    Of their SHA-256 where all are known, else of the roots of their chunks.
    """
    known = all(part.sha256 for part in parts)
    digest = hashlib.sha256(b"sha256" if known else b"chunks")
    for part in parts:
        content = part.sha256 if known else (part.root or b"").hex()
        digest.update(f"\0{part.size}\0{content}".encode())
    return digest.hexdigest()


def published_identity(model: LocalModel, records: Records) -> str | None:
    """By which a node knows it that sees it at the hub only; None where a file's SHA-256 is not known, or
    the file is gone, or looks other than when it had that."""
    try:
        parts = [
            _published(file, sha256, records) for file, sha256 in zip(model.files, model.sha256, strict=True)
        ]
    except OSError:
        return None
    known = [part for part in parts if part is not None]
    return identity_of(known) if len(known) == len(parts) else None


def cache_key(identity: str, parts: Sequence[Part]) -> str:
    """64 hex digits under which what is made of these files is kept: of their identity and, where they are
    known, of their chunks.

    Nobody can compare a SHA-256 with the part of a file that it has: who leads may name that of one model and
    the chunks of another, and must not change what others find here.
    """
    digest = hashlib.sha256(f"kept\0{identity}".encode())
    for part in parts:
        digest.update(f"\0{(part.root or b'').hex()}".encode())
    return digest.hexdigest()


def _published(file: Path, sha256: str | None, records: Records) -> Part | None:
    """Raises OSError."""
    record, seen = records.read(file), Identity.of(file)
    if record is None or record.identity != seen or record.sha256 != sha256:
        return None
    return Part(name=file.name, size=seen.bytes, sha256=record.sha256)


async def _part(file: Path, sha256: str | None, manifests: Manifests, records: Records) -> Part:
    manifest, identity = await manifests.manifest_of(file)
    record = records.read(file)
    is_known = record is not None and record.identity == identity and _ORIGIN.fullmatch(record.origin)
    return Part(
        name=file.name,
        size=identity.bytes,
        sha256=sha256 or "",
        root=manifest.root,
        origin=record.origin if record is not None and is_known else "",
    )


def _headers(files: Sequence[Path]) -> list[Header]:
    return [read_file_header(file) for file in files]
