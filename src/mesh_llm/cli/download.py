"""`mesh-llm download`: fetches models by name; without one, lists the catalogue."""

import json
import os
from argparse import Namespace
from dataclasses import asdict

from mesh_llm.cli import tables
from mesh_llm.cli.arguments import home_of
from mesh_llm.cli.display import display_for
from mesh_llm.core.errors import ModelNotFound
from mesh_llm.core.quantities import human_bytes
from mesh_llm.models.catalogue import Catalogue, Entry, load_catalogue
from mesh_llm.models.library import Library, LocalModel
from mesh_llm.models.obtain import obtain
from mesh_llm.models.places import ModelPlaces


async def run(arguments: Namespace) -> int:
    places = ModelPlaces.from_environment(os.environ, home_of(arguments))
    catalogue = load_catalogue(places.own_catalogue)
    if not arguments.name:
        _list(catalogue, Library(catalogue=catalogue, places=places), as_json=arguments.json)
        return 0
    wanted = [name for asked in arguments.name for name in _with_draft(asked, catalogue, arguments.draft)]
    with display_for(arguments.log_format) as display:
        models = [await obtain(name, places, display.show) for name in wanted]
    if arguments.json:
        print(json.dumps([_as_json(model) for model in models], indent=2))
    else:
        for model in models:
            print(f"{model.name}: {human_bytes(model.bytes)} in {model.files[0].parent}")
    return 0


def _with_draft(asked: str, catalogue: Catalogue, draft: bool) -> list[str]:
    """`asked`, and the model that drafts for it if that is wanted too."""
    if not draft:
        return [asked]
    entry = catalogue.find(asked)
    if entry.draft is None:
        raise ModelNotFound(f"The catalogue names no draft model for {entry.name}: leave out --draft.")
    return [asked, entry.draft]


def _list(catalogue: Catalogue, library: Library, *, as_json: bool) -> None:
    here = {entry.name for entry in catalogue.entries if library.find(entry.name) is not None}
    if as_json:
        print(json.dumps([_entry_as_json(e, e.name in here) for e in catalogue.entries], indent=2))
    else:
        titles = ("model", "size>", "draft", "experts>", "on disk")
        tables.show(titles, (_cells(entry, entry.name in here) for entry in catalogue.entries))


def _cells(entry: Entry, on_disk: bool) -> tuple[str, ...]:
    experts = f"{entry.experts.used} of {entry.experts.count}" if entry.experts else ""
    return (entry.name, human_bytes(entry.bytes), entry.draft or "", experts, "yes" if on_disk else "")


def _entry_as_json(entry: Entry, on_disk: bool) -> dict[str, object]:
    return {
        "name": entry.name,
        "bytes": entry.bytes,
        "draft": entry.draft,
        "experts": asdict(entry.experts) if entry.experts else None,
        "on_disk": on_disk,
    }


def _as_json(model: LocalModel) -> dict[str, object]:
    return {
        "name": model.name,
        "files": [str(file) for file in model.files],
        "bytes": model.bytes,
        "sha256": list(model.sha256),
    }
