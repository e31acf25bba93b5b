"""Rankings of experts as text: in files beside the cuts, and from peers. Counterpart: `core/experts.py`.

Whoever wrote one may have been killed, be older, or mean another file: what does not check is refused with
the reason, and the ranking is made anew.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.models.disk import cannot_write
from mesh_llm.models.records import replace_text
from mesh_llm.models.threads import run_to_end

VERSION = 1

RANKING_BYTES_MAX = 8 * 2**20
"""1024 experts, which llama.cpp has at most, in 256 layers take 1.3 MB."""

SOURCE_CHARACTERS_MAX = 200

ID_BYTES_MAX = 16
"""Of an expert in a list, with what separates it; also where each stands in a line of its own."""

LAYER_BYTES_MAX = 64
"""That are not its experts."""

OTHER_BYTES_MAX = 4096
"""That are no lists."""


def ranking_bytes_max(shape: ExpertShape) -> int:
    """That a ranking of such a mixture can have: read as JSON it takes some twenty times as much memory."""
    lists = len(shape.layers) * (LAYER_BYTES_MAX + shape.experts * ID_BYTES_MAX)
    return min(RANKING_BYTES_MAX, OTHER_BYTES_MAX + lists)


def encode_ranking(identity: str, ranking: ExpertRanking) -> str:
    """`identity`: of the model's files."""
    return json.dumps(
        {
            "version": VERSION,
            "model": identity,
            "source": ranking.source,
            "digest": ranking.digest,
            "layers": {str(layer): list(ids) for layer, ids in ranking.by_layer.items()},
        }
    )


def decode_ranking(text: bytes, identity: str, shape: ExpertShape) -> ExpertRanking:
    """Raises ModelDamaged with the reason: cut off, of another version or model, not of each layer and
    expert."""
    fields = _fields(text, ranking_bytes_max(shape))
    if fields.get("model") != identity:
        raise _unusable("it is of another model's files")
    source, digest = fields.get("source"), fields.get("digest")
    if not isinstance(source, str):
        raise _unusable("it does not say where it is from")
    shown = "".join(filter(str.isprintable, source[:SOURCE_CHARACTERS_MAX]))
    ranking = ExpertRanking.of(_lists(fields.get("layers"), shape), shown)
    if ranking.digest != digest:
        raise _unusable("its lists have been altered")
    return ranking


def read_ranking(path: Path, identity: str, shape: ExpertShape) -> ExpertRanking | None:
    """None where there is no file. Raises ModelDamaged as `decode_ranking` does."""
    try:
        with path.open("rb") as file:
            text = file.read(RANKING_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}") from error
    return decode_ranking(text, identity, shape)


def write_ranking(path: Path, identity: str, ranking: ExpertRanking) -> None:
    """All of it or nothing. Raises DiskFull."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, encode_ranking(identity, ranking))
    except OSError as error:
        raise cannot_write(path, error) from error


async def kept_ranking(
    path: Path,
    identity: str,
    shape: ExpertShape,
    make: Callable[[], Awaitable[ExpertRanking]],
    on_refused: Callable[[str], None],
) -> ExpertRanking:
    """The one in the file, or `make` a new one and write it there; `on_refused` hears why a file is not used.
    Raises DiskFull, and what `make` raises."""
    try:
        found = await run_to_end(read_ranking, path, identity, shape)
    except ModelDamaged as error:
        on_refused(str(error))
        found = None
    if found is not None:
        return found
    made = await make()
    await run_to_end(write_ranking, path, identity, made)
    return made


def _fields(text: bytes, bytes_max: int) -> Mapping[str, object]:
    if len(text) > bytes_max:
        raise _unusable(f"it has more than {bytes_max:,} bytes")
    try:
        fields = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        raise _unusable("it is cut off, or no JSON") from None
    if not isinstance(fields, dict):
        raise _unusable("it is no JSON object")
    known = cast("dict[str, object]", fields)
    if known.get("version") != VERSION:
        raise _unusable(f"it has version {known.get('version')!r:.20}, known is {VERSION}")
    return known


def _lists(layers: object, shape: ExpertShape) -> dict[int, tuple[int, ...]]:
    lists = cast("dict[str, object]", layers) if isinstance(layers, dict) else {}
    if lists.keys() != {str(layer) for layer in shape.layers}:
        raise _unusable(f"it does not list the experts of the {len(shape.layers)} layers that have any")
    return {layer: _ids(layer, lists[str(layer)], shape) for layer in shape.layers}


def _ids(layer: int, ids: object, shape: ExpertShape) -> tuple[int, ...]:
    found = cast("list[object]", ids) if isinstance(ids, list) else []
    numbers = tuple(each for each in found if isinstance(each, int) and not isinstance(each, bool))
    if len(numbers) != len(found) or sorted(numbers) != list(range(shape.experts)):
        raise _unusable(f"it does not list each of the {shape.experts} experts of layer {layer} once")
    return numbers


def _unusable(why: str) -> ModelDamaged:
    return ModelDamaged(f"This ranking of experts is of no use: {why}. It must be measured again.")
