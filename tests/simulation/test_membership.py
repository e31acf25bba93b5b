"""Who sees whom, in virtual time: one sentence a scenario, one history a seed."""

from mesh_llm.mesh.gossip.membership_events import AdvertHeld
from mesh_llm.mesh.gossip.messages import Gossip, PingReport
from mesh_llm.mesh.gossip.news import Health, News
from tests.simulation.mesh import SimulatedMesh, key_of, mesh_of, settled_mesh_of
from tests.simulation.seeds import every_seed
from tests.simulation.world import NetworkConditions

NOTICED_S = 10
HEALED_S = 15


def others_than(mesh: SimulatedMesh, *names: str) -> list[str]:
    return [name for name in sorted(mesh.nodes) if name not in names]


@every_seed
def test_a_new_mesh_agrees_on_its_members(seed):
    mesh = mesh_of(8, seed)
    mesh.world.run_until(mesh.agrees, within=30)


@every_seed
def test_who_joins_a_settled_mesh_is_seen_by_all_and_sees_all_within_seconds(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.boot("new", "n3")
    mesh.world.run_until(mesh.agrees, within=5)


@every_seed
def test_a_node_that_dies_is_missed_by_everybody_within_ten_seconds(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.world.run_for(mesh.world.chance.uniform(0, 30))
    mesh.crash("n3")
    mesh.world.run_until(lambda: mesh.all_miss("n3"), within=NOTICED_S)
    mesh.world.run_until(mesh.agrees, within=NOTICED_S)


@every_seed
def test_two_nodes_of_one_machine_die_together_and_both_are_missed(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.crash("n3")
    mesh.crash("n5")
    mesh.world.run_until(lambda: mesh.all_miss("n3") and mesh.all_miss("n5"), within=NOTICED_S + 4)


@every_seed
def test_a_node_whose_cable_is_pulled_is_missed_and_comes_back_with_the_cable(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.world.partition(["n3"], others_than(mesh, "n3"))
    rest = [mesh.nodes[name] for name in others_than(mesh, "n3")]
    gone = key_of("n3").node
    mesh.world.run_until(lambda: all(gone not in node.membership.living() for node in rest), within=NOTICED_S)
    mesh.world.run_for(60)
    mesh.world.heal()
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_nobody_living_is_buried_on_a_calm_network_however_slow(seed):
    mesh = settled_mesh_of(8, seed, latency_min=0.2, latency_max=0.299)
    mesh.world.run_for(300)  # the mesh itself objects to a burial (SimulatedMesh.believes)
    assert not [line for line in mesh.world.trace if "SUSPECT" in line]
    assert mesh.agrees()


def test_eight_nodes_live_together_for_an_hour():
    mesh = settled_mesh_of(8, seed=1)
    for minute in range(60):
        mesh.change(f"n{minute % 8}", f"Model-{minute}")
        mesh.world.run_for(60)
    assert mesh.agrees()
    assert not [line for line in mesh.world.trace if "SUSPECT" in line]


@every_seed
def test_a_lossy_network_that_repeats_and_reorders_ends_in_agreement(seed):
    mesh = mesh_of(8, seed, loss=0.15, duplication=0.1, latency_max=0.4)
    mesh.world.run_for(60)
    for name in sorted(mesh.nodes):
        mesh.change(name, "Qwen3-8B")
    mesh.world.set_conditions(NetworkConditions())
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_a_tenth_of_all_datagrams_lost_buries_nobody(seed):
    mesh = settled_mesh_of(8, seed, loss=0.1, duplication=0.1)
    start = len(mesh.world.trace)
    mesh.world.run_for(120)
    assert not [line for line in mesh.world.trace[start:] if "DEAD" in line]


@every_seed
def test_a_healed_partition_forgives_both_sides(seed):
    mesh = settled_mesh_of(10, seed)
    names = sorted(mesh.nodes)
    size = mesh.world.chance.randint(1, 5)
    mesh.world.partition(names[:size], names[size:])
    mesh.world.run_for(mesh.world.chance.uniform(60, 300))
    assert len(mesh.nodes[names[-1]].membership.living()) == 10 - size - 1
    mesh.change(names[0], "Qwen3-8B")
    mesh.world.heal()
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_three_islands_find_one_another_again(seed):
    mesh = settled_mesh_of(9, seed)
    names = sorted(mesh.nodes)
    mesh.world.partition(names[:3], names[3:6], names[6:])
    mesh.world.run_for(120)
    mesh.world.heal()
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_two_that_cannot_reach_each_other_live_in_each_others_view_through_third_ones(seed):
    mesh = settled_mesh_of(8, seed)
    start = len(mesh.world.trace)
    mesh.world.cut("n1", "n5")
    mesh.world.cut("n5", "n1")
    mesh.world.run_for(120)
    assert not [line for line in mesh.world.trace[start:] if "DEAD" in line]


@every_seed
def test_a_cut_in_one_direction_buries_nobody(seed):
    mesh = settled_mesh_of(8, seed)
    start = len(mesh.world.trace)
    mesh.world.cut("n1", "n5")
    mesh.world.run_for(120)
    assert not [line for line in mesh.world.trace[start:] if "DEAD" in line]


@every_seed
def test_who_restarts_is_known_again_though_it_forgot_what_it_was(seed):
    mesh = settled_mesh_of(8, seed)
    for _ in range(3):
        mesh.change("n3", f"Model-{mesh.world.chance.random()}")
        mesh.world.run_for(5)
    mesh.crash("n3")
    mesh.world.run_for(mesh.world.chance.choice([0.2, 3, 30]))
    mesh.boot("n3", mesh.world.chance.choice(others_than(mesh, "n3")))
    mesh.change("n3", "Qwen3-8B")
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_a_process_that_stood_still_buries_nobody_and_is_forgiven(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.pause("n3", seconds := mesh.world.chance.uniform(5, 40))
    mesh.world.run_for(seconds - 0.001)
    start = len(mesh.world.trace)
    mesh.world.run_for(0.002)
    mesh.world.run_until(mesh.agrees, within=HEALED_S)
    mesh.world.run_for(10)
    assert not [line for line in mesh.world.trace[start:] if "n3 sees" in line and "DEAD" in line]


@every_seed
def test_a_loop_that_stalls_for_a_second_now_and_then_harms_nobody(seed):
    mesh = settled_mesh_of(8, seed)
    start = len(mesh.world.trace)
    for _ in range(20):
        mesh.pause("n3", seconds := mesh.world.chance.uniform(0.5, 2.5))
        mesh.world.run_for(seconds + 2)
    assert not [line for line in mesh.world.trace[start:] if "DEAD" in line]


@every_seed
def test_who_leaves_is_gone_at_once_and_comes_back_when_it_wants(seed):
    mesh = settled_mesh_of(8, seed, loss=0.1)
    mesh.leave("n3")
    rest = others_than(mesh, "n3")
    mesh.world.run_until(lambda: all(mesh.sees(name, "n3") is Health.LEFT for name in rest), within=NOTICED_S)
    mesh.crash("n3")
    mesh.world.run_for(5)
    assert all(mesh.sees(name, "n3") is Health.LEFT for name in rest)
    mesh.boot("n3", "n0")
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_who_leaves_and_comes_at_once_is_not_held_to_its_old_word(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.leave("n3")
    mesh.crash("n3")
    mesh.boot("n3", "n0")
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_a_forged_leave_is_believed_by_nobody(seed):
    mesh = settled_mesh_of(8, seed)
    start = len(mesh.world.trace)
    forged = Gossip(mesh.news_of_all(Health.LEFT, incarnation=5, signature=b"f" * 64))
    for name in others_than(mesh, "n7"):
        mesh.hear(name, "n7", forged)
    mesh.world.run_for(30)
    assert not [line for line in mesh.world.trace[start:] if "LEFT" in line]
    assert all(mesh.nodes[name].membership.forged_leaves for name in others_than(mesh, "n7"))
    assert mesh.agrees()


@every_seed
def test_a_liar_buries_nobody_and_wakes_no_dead(seed):
    mesh = settled_mesh_of(8, seed)
    mesh.crash("n6")
    mesh.world.run_until(lambda: mesh.all_miss("n6"), within=NOTICED_S)
    start = len(mesh.world.trace)
    victims = others_than(mesh, "n7")
    for _ in range(60):
        lie = mesh.world.chance.choice([Health.SUSPECT, Health.DEAD, Health.DEAD])
        news = mesh.news_of_all(lie, incarnation=mesh.world.chance.choice([0, 1, 2**40]))
        dead = News(key_of("n6").node, mesh.world.chance.choice([0, 9]), Health.ALIVE, 0)
        for name in victims:
            mesh.hear(name, "n7", Gossip((*news, dead)))
            mesh.hear(name, "n7", PingReport(mesh.world.chance.randrange(200), dead.node))
        mesh.world.run_for(1)
    # A report that was asked for is believed: a liar among the helpers can delay a burial, no more.
    wrong = [line for line in mesh.world.trace[start:] if "DEAD" in line and "n6" not in line]
    assert not wrong
    assert not [line for line in mesh.world.trace[start:] if "n6 ALIVE" in line and not line.startswith("n7")]
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


@every_seed
def test_invented_versions_and_strangers_cost_little_and_change_nothing(seed):
    mesh = settled_mesh_of(8, seed)
    for _ in range(30):
        strangers = [key_of(f"stranger {mesh.world.chance.randrange(100)}").node for _ in range(10)]
        known = [key_of(name).node for name in others_than(mesh, "n7")]
        news = tuple(News(node, 0, Health.ALIVE, 2**30) for node in [*strangers, *known][:18])
        for name in others_than(mesh, "n7"):
            mesh.hear(name, "n7", Gossip(news))
        mesh.world.run_for(1)
    mesh.sent.clear()
    mesh.world.run_until(mesh.agrees, within=HEALED_S)
    mesh.change("n1", "Qwen3-8B")
    mesh.world.run_until(mesh.agrees, within=HEALED_S)


def test_the_dead_are_asked_for_an_hour_and_then_forgotten():
    mesh = settled_mesh_of(3, seed=1)
    ghosts = [key_of(f"ghost {place}").node for place in range(10)]
    mesh.names |= {node: f"ghost {place}" for place, node in enumerate(ghosts)}
    observer = mesh.nodes["n0"]
    for node in ghosts:
        observer.take(AdvertHeld(node, 1))
    mesh.world.run_for(120)
    assert [observer.membership.member(node).health for node in ghosts] == [Health.DEAD] * 10
    mesh.world.run_for(3700)
    assert [observer.membership.member(node) for node in ghosts] == [None] * 10
    assert mesh.agrees()
