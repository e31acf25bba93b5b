"""The mixture of experts that a command is about, on this disk or at the hub, and what is kept of it."""

import os
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh_llm.cli.arguments import home_of
from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.experts import Kept, Quality
from mesh_llm.core.progress import Report
from mesh_llm.models.catalogue import load_catalogue
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.detection import detect
from mesh_llm.models.experts.quality_files import read_quality
from mesh_llm.models.library import Library
from mesh_llm.models.obtain import obtain, wanted_from_hub
from mesh_llm.models.places import ModelPlaces
from mesh_llm.models.records import Records
from mesh_llm.models.stages.manifests import Manifests
from mesh_llm.node.mixtures import MixtureSource, mixture_source
from mesh_llm.node.split_sources import headers_of


@dataclass(frozen=True, slots=True)
class FoundMixture:
    source: MixtureSource
    store: CutStore

    @property
    def ranking_path(self) -> Path:
        return self.store.ranking_path(self.source.identity)

    def quality(self, ranking_digest: str, kept: Kept) -> Quality | None:
        """As measured here. Raises ModelDamaged."""
        path = self.store.quality_path(self.source.identity, ranking_digest, kept)
        return read_quality(path, self.source.identity, kept.digest)


@asynccontextmanager
async def found_mixture(arguments: Namespace, report: Report) -> AsyncGenerator[FoundMixture]:
    """What is only at the hub is looked at there, its headers alone.

    Raises RequestRefused where it is no mixture, or one that cannot be cut, and what `obtain` raises.
    """
    places = ModelPlaces.from_environment(os.environ, home_of(arguments))
    records = Records(places.notes, places.store)
    library = Library(places, load_catalogue(places.own_catalogue))
    if wanted_from_hub(arguments.model, library) is not None:
        from mesh_llm.models.hub_model import look_at_hub
        from mesh_llm.models.web import Web

        async with Web(places) as web:
            there = await look_at_hub(arguments.model, places, web)
            if there is not None:
                _check(there.name, detect(there.headers) is not None)
                yield FoundMixture(await mixture_source(there, Manifests(records), records), CutStore(places))
                return
    here = await obtain(arguments.model, places, report)
    _check(here.name, detect(await headers_of(here.files)) is not None)
    yield FoundMixture(await mixture_source(here, Manifests(records), records), CutStore(places))


def _check(name: str, is_mixture: bool) -> None:
    if not is_mixture:
        raise RequestRefused(
            f"{name} is no mixture of experts: there is nothing to keep the best of. What fits no machine is "
            "split between its layers when it is served.",
            parameter="model",
        )
