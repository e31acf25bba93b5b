"""Rankings of experts had from members, of whom most are hostile: real streams, answers by hand."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

import pytest

from mesh_llm.core.errors import Unavailable
from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import CutOffer, ModelOffer, ServedOffer
from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.gossip.membership_events import Member
from mesh_llm.mesh.neighbour import Neighbour
from mesh_llm.mesh.service import Mesh
from mesh_llm.mesh.transport import Kind, Stream
from mesh_llm.models.experts.cut_store import CutStore
from mesh_llm.models.experts.ranking_files import encode_ranking, read_ranking
from mesh_llm.models.places import ModelPlaces
from mesh_llm.node.expert_rankings import ExpertRankings
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.node.own_models import OwnModels
from mesh_llm.planner.expert_plan import Mixture
from mesh_llm.splits.ranking_exchange import RankingServer
from tests.engine.served_model_for_tests import FACTS
from tests.node.settings import doors, settings_in
from tests.splits.village import Answer, Village, village

ASKER = 1
MODEL = "ab" * 32
SHAPE = ExpertShape(experts=4, used=2, layers=(0, 1))
SOURCE = MixtureSource("mixture", (), MODEL, Mixture(FACTS, SHAPE, 1000, 100), (), ())
"""It lies on no disk here: nothing can be measured."""
GOOD = ExpertRanking.of({0: (3, 0, 1, 2), 1: (0, 1, 2, 3)}, "measured here")


class Acquainted:
    """As much of `Mesh` as rankings are asked by: every other villager serves a cut with a ranking."""

    def __init__(self, place: Village) -> None:
        self._place = place
        self.asked: list[NodeId] = []

    @property
    def me(self) -> NodeId:
        return self._place[ASKER].id

    def name_of(self, node: NodeId) -> str:
        return node[:4]

    def neighbours(self) -> Sequence[Neighbour]:
        offer = ServedOffer(ModelOffer("mixture", cut=CutOffer(MODEL, "any", "any", 3, 4)), ready=True)
        others = [villager for villager in self._place.villagers.values() if villager.id != self.me]
        return [
            Neighbour(cast("Member", None), Advert(villager.id, 1, models=(offer,)), 0) for villager in others
        ]

    def stream(self, node: NodeId, kind: Kind) -> AbstractAsyncContextManager[Stream]:
        self.asked.append(node)
        return self._place[ASKER].stream(node, kind)


def saying(text: bytes) -> Answer:
    async def answer(stream: Stream) -> None:
        await stream.receive()
        await stream.send(text)
        await stream.finish()

    return answer


async def breaks_off(stream: Stream) -> None:
    await stream.receive()
    await stream.send(b"{")


async def never_ends(stream: Stream) -> None:
    while True:
        await stream.send(bytes(1000))


async def refuses(stream: Stream) -> None:
    await stream.refuse("Not today.")


ALIEN = ExpertRanking.of({0: (0, 1), 1: (0, 1)}, "")
HOSTILE: list[Answer] = [
    breaks_off,
    never_ends,
    refuses,
    saying(b"no ranking"),
    saying(encode_ranking(MODEL, ALIEN).encode()),
    saying(encode_ranking("cd" * 32, GOOD).encode()),
]


def tell_nobody(what: str, measuring: str = "") -> None:
    pass


def rankings(mesh: Acquainted, folder: Path) -> tuple[ExpertRankings, CutStore]:
    places = ModelPlaces(folder, folder, folder)
    store = CutStore(places)
    models = OwnModels(settings_in(folder, places=places), doors(), lambda: None)
    return ExpertRankings(store, cast("Mesh", mesh), models, {}), store


async def test_whoever_sends_none_the_next_member_is_asked_and_its_ranking_is_kept(tmp_path: Path):
    async with village(len(HOSTILE) + 2) as place:
        for number, answer in enumerate(HOSTILE, 2):
            place[number].answers[Kind.RANKING] = answer
        place[len(HOSTILE) + 2].answers[Kind.RANKING] = RankingServer({MODEL: GOOD}.get).answer
        mesh = Acquainted(place)
        asker, store = rankings(mesh, tmp_path)
        told = await asker.of(SOURCE, tell_nobody)
        assert told.by_layer == GOOD.by_layer
        assert told.source == f"from node {place[len(HOSTILE) + 2].id[:10]}"
        assert len(mesh.asked) == len(HOSTILE) + 1
        kept = read_ranking(store.ranking_path(MODEL), MODEL, SHAPE)
        assert kept is not None and kept.digest == GOOD.digest
        assert len(place[ASKER].errors) == 4  # counted against who broke the rules


async def test_where_all_are_hostile_that_is_said_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mesh_llm.node.measuring.SETTLE_S", 0)
    async with village(len(HOSTILE) + 1) as place:
        for number, answer in enumerate(HOSTILE, 2):
            place[number].answers[Kind.RANKING] = answer
        mesh = Acquainted(place)
        asker, store = rankings(mesh, tmp_path)
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="mesh-llm download mixture"):
                await asker.of(SOURCE, tell_nobody)
        assert len(mesh.asked) == len(HOSTILE)  # nobody is asked twice for the same
        assert not store.ranking_path(MODEL).exists()
