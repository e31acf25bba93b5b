"""Members of whom the bytes of a mixture are asked, by what they say of themselves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from mesh_llm.core.experts import ExpertShape
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import CutOffer, ModelOffer, ServedOffer
from mesh_llm.core.stages import SplitClaim
from mesh_llm.mesh.gossip.advert import Advert
from mesh_llm.mesh.gossip.membership_events import Member
from mesh_llm.mesh.neighbour import Neighbour
from mesh_llm.mesh.service import Mesh
from mesh_llm.node.mixture_holders import LOOKS_MAX, MixtureHolders
from mesh_llm.node.mixtures import MixtureSource
from mesh_llm.planner.expert_plan import Mixture
from tests.engine.served_model_for_tests import FACTS
from tests.mesh.members import key

MODEL = "ab" * 32
SHAPE = ExpertShape(experts=4, used=2, layers=(0, 1))
SOURCE = MixtureSource("mixture", ("org/repo/mixture.gguf",), MODEL, Mixture(FACTS, SHAPE, 1000, 100), (), ())
NODES = [key(number).node for number in range(1, 8)]


class Told:
    """As much of `Mesh` as holders are found by."""

    def __init__(self, *adverts: Advert, silent: Sequence[NodeId] = ()) -> None:
        self.adverts = list(adverts)
        self._silent = silent

    def neighbours(self) -> Sequence[Neighbour]:
        return [Neighbour(cast("Member", None), advert, 0) for advert in self.adverts]

    def names(self) -> dict[NodeId, str]:
        return dict.fromkeys([*(advert.node for advert in self.adverts), *self._silent], "")


def holders(mesh: Told) -> MixtureHolders:
    return MixtureHolders(SOURCE, cast("Mesh", mesh))


def serving(number: int, offer: ModelOffer) -> Advert:
    return Advert(NODES[number], 1, models=(ServedOffer(offer, ready=True),))


WHOLE = serving(0, ModelOffer("mixture"))
CUT = serving(1, ModelOffer("mixture", cut=CutOffer(MODEL, "any", "any", 3, 4)))
OTHER_CUT = serving(2, ModelOffer("mixture", cut=CutOffer("cd" * 32, "any", "any", 3, 4)))
OTHER = serving(3, ModelOffer("another"))
ALIAS = serving(4, ModelOffer("mine", aliases=("org/repo/mixture.gguf",)))
CLAIM = Advert(NODES[5], 1, claims=(SplitClaim(MODEL),))


def test_who_serves_all_of_it_or_wants_to_is_asked_before_who_serves_a_cut():
    told = Told(CUT, OTHER_CUT, WHOLE, OTHER, ALIAS, CLAIM)
    assert holders(told).now() == [NODES[0], NODES[4], NODES[5], NODES[1]]


def test_who_serves_both_is_asked_once():
    both = replace(WHOLE, models=(*WHOLE.models, *CUT.models))
    assert holders(Told(both)).now() == [NODES[0]]


async def waited(mesh: Told, *, heard_after: int = 1000, heard: Advert = WHOLE) -> int:
    looks = 0

    async def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == heard_after:
            mesh.adverts.append(heard)

    await holders(mesh).wait(sleep)
    return looks


async def test_a_member_that_is_still_to_say_what_it_has_is_waited_for():
    assert await waited(Told(silent=[NODES[0]]), heard_after=3) == 3


async def test_nobody_waits_where_all_have_spoken_or_nobody_is_there():
    assert await waited(Told()) == 0
    assert await waited(Told(OTHER)) == 0
    assert await waited(Told(WHOLE, silent=NODES[3:])) == 0
    assert await waited(Told(silent=[NODES[3]]), heard_after=2, heard=OTHER) == 2


async def test_members_that_say_nothing_are_not_waited_for_long():
    assert await waited(Told(OTHER, silent=NODES)) == LOOKS_MAX
