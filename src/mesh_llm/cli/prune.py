"""`mesh-llm models prune`: stages, cuts and unfinished downloads, which can be made or fetched again.

It lists them; `--yes` deletes those that nobody uses. Models are never among them.
"""

import json
import os
from argparse import Namespace
from collections.abc import Sequence

from mesh_llm.cli import tables
from mesh_llm.cli.arguments import home_of
from mesh_llm.core.quantities import human_bytes
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.stages.made_files import Leftover, MadeFiles

KINDS = {"stage": "stage of a model", "cut": "some experts of a model", "part": "not finished"}


async def run(arguments: Namespace) -> int:
    places = ModelPlaces.from_environment(os.environ, home_of(arguments))
    store = MadeFiles(places)
    found = store.leftovers()
    gone = store.prune(found) if arguments.yes else []
    if arguments.json:
        print(json.dumps([_as_json(each, gone) for each in found], indent=2))
    elif found:
        _show(found, gone, places)
    else:
        print(f"Nothing to prune in {places.store}: no stages or cuts of models, no unfinished downloads.")
    return 0


def _show(found: Sequence[Leftover], gone: Sequence[Leftover], places: ModelPlaces) -> None:
    rows = (
        (
            str(each.path.relative_to(places.store)),
            KINDS[each.kind],
            human_bytes(each.bytes),
            _fate(each, gone),
        )
        for each in found
    )
    tables.show(("file", "kind", "size>", ""), rows)
    if gone:
        print(f"{human_bytes(_bytes(gone))} deleted from {places.store}")
        return
    free = [each for each in found if not each.in_use]
    if free:
        print(f"{human_bytes(_bytes(free))} in {places.store}: `mesh-llm models prune --yes` deletes them")


def _fate(leftover: Leftover, gone: Sequence[Leftover]) -> str:
    if leftover in gone:
        return "deleted"
    return "in use, stays" if leftover.in_use else ""


def _bytes(leftovers: Sequence[Leftover]) -> int:
    return sum(each.bytes for each in leftovers)


def _as_json(leftover: Leftover, gone: Sequence[Leftover]) -> dict[str, str | int | bool]:
    return {
        "path": str(leftover.path),
        "kind": leftover.kind,
        "bytes": leftover.bytes,
        "in_use": leftover.in_use,
        "deleted": leftover in gone,
    }
