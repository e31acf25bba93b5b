"""`mesh-llm models`: what is on disk, what it needs, and whether it fits this machine. `models prune` is in
`prune.py`."""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh_llm.cli import prune, tables
from mesh_llm.cli.arguments import home_of
from mesh_llm.core.errors import MeshError
from mesh_llm.core.model import ModelFacts
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.whole.placement import facts_in_memory
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.gguf.facts import read_file_facts
from mesh_llm.models.library import Library
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.shelf import StoredModel
from mesh_llm.node.own_models import measure_machine
from mesh_llm.planner.capacity import memory_for_models
from mesh_llm.planner.fit import Fit, Wish, fit, least


@dataclass(frozen=True, slots=True)
class Row:
    model: StoredModel
    facts: ModelFacts | None
    """None where the file cannot be read; `problem` says why."""
    fitted: Fit | None
    """None where it does not fit, or cannot be read."""
    needed: int
    """Bytes: of the fit, or the least that it would take."""
    problem: str | None


async def run(arguments: Namespace) -> int:
    if arguments.action == "prune":
        return await prune.run(arguments)
    places = ModelPlaces.from_environment(os.environ, home_of(arguments))
    library = Library(places, load_catalogue(places.own_catalogue))
    _, machine = await measure_machine((), os.environ)
    budget = memory_for_models(machine, None)
    rows = [_row(model, budget) for model in library.models()]
    if arguments.json:
        print(json.dumps([_as_json(row) for row in rows], indent=2))
    elif rows:
        _show(rows, budget)
    else:
        print(f"No model in {places.store} or the Hugging Face cache. Fetch one: mesh-llm download")
    return 0


def _row(model: StoredModel, budget: int) -> Row:
    if model.missing:
        return Row(model, None, None, 0, f"{len(model.missing)} parts are missing")
    try:
        facts = facts_in_memory(read_file_facts(model.files), model.projector)
    except MeshError as error:
        return Row(model, None, None, 0, str(error))
    try:
        fitted = fit(facts, budget, Wish())
    except MeshError as error:
        return Row(model, facts, None, least(facts, Wish()).total, str(error))
    return Row(model, facts, fitted, fitted.need.total, None)


def _show(rows: Sequence[Row], budget: int) -> None:
    titles = ("model", "size>", "quantisation", "parameters>", "context>", "needs>", "fits here")
    tables.show(titles, map(_cells, rows))
    print(f"models may use {human_bytes(budget)} here")


def _cells(row: Row) -> tuple[str, ...]:
    size = human_bytes(row.model.bytes)
    if row.facts is None:
        return (row.model.name, size, "", "", "", "", f"broken: {row.problem}")
    context = f"{row.fitted.context:,}" if row.fitted else ""
    verdict = "yes" if row.fitted else "no"
    parameters = f"{row.facts.parameters / 1e9:.2f} B"
    need = human_bytes(row.needed)
    return (row.model.name, size, row.facts.quantisation, parameters, context, need, verdict)


def _as_json(row: Row) -> dict[str, Any]:
    facts, fitted = row.facts, row.fitted
    return {
        "name": row.model.name,
        "files": [str(file) for file in row.model.files],
        "bytes": row.model.bytes,
        "architecture": facts and facts.architecture,
        "quantisation": facts and facts.quantisation,
        "parameters": facts and facts.parameters,
        "context_length_trained": facts and facts.context_length,
        "context_length_here": fitted and fitted.context,
        "kv_type": fitted and fitted.kv_type,
        "memory_bytes_needed": row.needed or None,
        "fits": fitted is not None,
        "problem": row.problem,
    }
