"""What nodes say of themselves arrives everywhere in its newest version, whoever lies, whatever breaks."""

from mesh_llm.mesh.gossip.messages import Gossip
from mesh_llm.mesh.gossip.news import Health, News
from tests.simulation.mesh import key_of, mesh_of, settled_mesh_of
from tests.simulation.seeds import every_seed


def models_of(mesh, observer, name):
    advert = mesh.nodes[observer].adverts.get(key_of(name).node)
    return [served.offer.aliases[1] for served in advert.models]


def seconds_until_known_everywhere(seed: int) -> float:
    mesh = settled_mesh_of(8, seed)
    mesh.change("n3", "Qwen3-8B")
    seconds = mesh.world.run_until(mesh.agrees, within=10)
    assert [models_of(mesh, name, "n3") for name in sorted(mesh.nodes)] == [["Qwen3-8B"]] * 8
    return seconds


@every_seed
def test_a_change_is_known_everywhere_within_ten_seconds(seed):
    """Whom chance keeps the rumour from hears of it when views are compared."""
    assert seconds_until_known_everywhere(seed) <= 10


def test_as_a_rule_a_change_is_known_everywhere_within_three_seconds():
    seconds = sorted(seconds_until_known_everywhere(seed) for seed in range(20))
    assert seconds[-2] <= 3


@every_seed
def test_adverts_that_change_while_datagrams_are_lost_agree_in_the_end(seed):
    mesh = settled_mesh_of(8, seed, loss=0.2, duplication=0.1)
    for change in range(40):
        mesh.change(mesh.world.chance.choice(sorted(mesh.nodes)), f"Model-{change}")
        mesh.world.run_for(mesh.world.chance.uniform(0, 1))
    mesh.world.run_until(mesh.agrees, within=20)


@every_seed
def test_what_changed_on_either_side_of_a_partition_is_known_after_it(seed):
    mesh = settled_mesh_of(8, seed)
    names = sorted(mesh.nodes)
    mesh.world.partition(names[:4], names[4:])
    for change in range(20):
        mesh.change(mesh.world.chance.choice(names), f"Model-{change}")
        mesh.world.run_for(3)
    mesh.world.heal()
    mesh.world.run_until(mesh.agrees, within=15)


@every_seed
def test_an_earlier_life_does_not_hide_what_a_node_says_now(seed):
    mesh = settled_mesh_of(8, seed)
    for change in range(mesh.world.chance.randrange(1, 6)):
        mesh.change("n3", f"Before-{change}")
        mesh.world.run_for(3)
    mesh.crash("n3")
    mesh.boot("n3", "n0")
    mesh.change("n3", "Now")
    mesh.world.run_until(mesh.agrees, within=15)
    assert [models_of(mesh, name, "n3") for name in sorted(mesh.nodes)] == [["Now"]] * 8


@every_seed
def test_whoever_invents_versions_keeps_no_true_one_from_anybody(seed):
    mesh = settled_mesh_of(8, seed)
    for change in range(20):
        invented = tuple(
            News(key_of(name).node, 0, Health.ALIVE, 2**20 + change)
            for name in sorted(mesh.nodes)
            if name != "n7"
        )
        for name in sorted(mesh.nodes):
            if name != "n7":
                mesh.hear(name, "n7", Gossip(invented))
        mesh.change(f"n{change % 7}", f"Model-{change}")
        mesh.world.run_for(1)
    mesh.world.run_until(mesh.agrees, within=15)


@every_seed
def test_a_first_exchange_brings_a_newcomer_every_advert(seed):
    mesh = mesh_of(20, seed)
    mesh.world.run_until(mesh.agrees, within=30)
    mesh.boot("new", "n0")
    mesh.world.run_until(mesh.agrees, within=5)
