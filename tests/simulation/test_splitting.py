"""Several nodes that want one model split end with one leader and one plan, whatever happens on the way."""

from tests.simulation.mesh import settled_mesh_of
from tests.simulation.seeds import every_seed
from tests.simulation.splitting import SplitMesh
from tests.simulation.world import NetworkConditions

AGREED_S = 15
"""Claims settle, memory is lent, stages are loaded; once more if the first plan met an old lease."""
REPLACED_S = 25
"""A death is noticed (10 s), claims settle, and all anew."""
HEALED_S = 40
"""Members find each other, one of two yields, answers under way end."""


def split_mesh(count: int, seed: int, rooms: float | list[float], wanting: int, **conditions: float):
    """The first `wanting` start the model within a breath; the others lend memory."""
    split = SplitMesh(settled_mesh_of(count, seed))
    if conditions:
        split.mesh.world.set_conditions(NetworkConditions(**conditions))
    sizes = rooms if isinstance(rooms, list) else [rooms] * count
    for place in reversed(range(count)):
        split.add(f"n{place}", sizes[place], wants=False) if place >= wanting else None
    for place in split.mesh.world.chance.sample(range(wanting), wanting):
        split.mesh.world.run_for(split.mesh.world.chance.uniform(0, 0.1))
        split.add(f"n{place}", sizes[place], wants=True)
    return split


def settled(count: int, seed: int, rooms: float | list[float], wanting: int) -> SplitMesh:
    split = split_mesh(count, seed, rooms, wanting)
    split.mesh.world.run_until(split.one_serves, within=AGREED_S)
    return split


@every_seed
def test_two_that_start_the_same_model_at_the_same_moment_end_with_one_plan(seed):
    split = split_mesh(2, seed, rooms=8, wanting=2)
    split.mesh.world.run_until(split.one_serves, within=AGREED_S)
    assert sum(one.rings_begun for one in split.splitters.values()) == 1


@every_seed
def test_five_that_start_the_same_model_at_the_same_moment_end_with_one_plan(seed):
    split = split_mesh(5, seed, rooms=5, wanting=5)
    split.mesh.world.run_until(split.one_serves, within=AGREED_S)
    split.mesh.world.run_for(60)
    assert split.one_serves()


@every_seed
def test_so_they_do_where_a_fifth_of_all_datagrams_is_lost(seed):
    split = split_mesh(5, seed, rooms=5, wanting=5, loss=0.2, duplication=0.1, latency_max=0.3)
    split.mesh.world.run_until(split.one_serves, within=2 * AGREED_S)


@every_seed
def test_the_roomiest_of_those_that_start_together_leads(seed):
    split = settled(3, seed, rooms=[4, 9, 4], wanting=3)
    assert split.serving() == ["n1"]


@every_seed
def test_who_comes_later_follows_and_changes_nothing(seed):
    split = settled(4, seed, rooms=7, wanting=1)
    leader = split.serving()
    split.mesh.world.run_for(split.mesh.world.chance.uniform(0, 10))
    split.mesh.boot("late", "n1")
    split.add("late", 100, wants=True)
    split.mesh.world.run_until(split.one_serves, within=AGREED_S)
    split.mesh.world.run_for(20)
    assert split.serving() == leader and split.one_serves()


@every_seed
def test_a_leader_that_is_killed_is_replaced(seed):
    split = settled(5, seed, rooms=7, wanting=3)
    (leader,) = split.serving()
    split.crash(leader)
    split.mesh.world.run_until(split.one_serves, within=REPLACED_S)


@every_seed
def test_a_leader_that_is_killed_while_it_begins_is_replaced(seed):
    split = split_mesh(5, seed, rooms=7, wanting=3)
    split.mesh.world.run_for(split.mesh.world.chance.uniform(2, 6))
    leading = [name for name, one in sorted(split.splitters.items()) if one.ring is not None]
    split.crash(leading[0] if leading else "n0")
    split.mesh.world.run_until(split.one_serves, within=REPLACED_S + AGREED_S)


@every_seed
def test_a_stage_that_is_killed_is_replaced_by_the_same_leader(seed):
    split = settled(4, seed, rooms=7, wanting=2)
    (leader,) = split.serving()
    ring = split.splitters[leader].ring
    assert ring is not None
    split.crash(ring.loans[0].holder.node.name)
    split.mesh.world.run_until(split.one_serves, within=REPLACED_S)
    assert split.serving() == [leader]


@every_seed
def test_a_healed_partition_leaves_one_of_two_leaders(seed):
    split = settled(4, seed, rooms=7, wanting=4)
    islands = ["n0", "n1"], ["n2", "n3"]
    split.mesh.world.partition(*islands)
    split.mesh.world.run_until(
        lambda: all(split.one_serves(island) for island in islands), within=REPLACED_S + AGREED_S
    )
    split.mesh.world.run_for(30)
    split.mesh.world.heal()
    split.mesh.world.run_until(split.one_serves, within=HEALED_S)
    split.mesh.world.run_for(30)
    assert split.one_serves()


@every_seed
def test_an_island_that_is_too_small_waits_and_joins_the_others_again(seed):
    split = settled(5, seed, rooms=5, wanting=5)
    islands = ["n0", "n1"], ["n2", "n3", "n4"]
    split.mesh.world.partition(*islands)
    split.mesh.world.run_until(lambda: split.one_serves(islands[1]), within=REPLACED_S + AGREED_S)
    assert not split.serving(islands[0])
    split.mesh.world.heal()
    split.mesh.world.run_until(split.one_serves, within=HEALED_S)


@every_seed
def test_a_partition_at_the_moment_of_starting_ends_in_one_plan(seed):
    split = split_mesh(4, seed, rooms=7, wanting=4)
    split.mesh.world.run_for(split.mesh.world.chance.uniform(0, 6))
    split.mesh.world.partition(["n0", "n1"], ["n2", "n3"])
    split.mesh.world.run_for(split.mesh.world.chance.uniform(1, 40))
    split.mesh.world.heal()
    split.mesh.world.run_until(split.one_serves, within=HEALED_S + AGREED_S)
    split.mesh.world.run_for(30)
    assert split.one_serves()


@every_seed
def test_a_leader_that_stood_still_yields_when_it_goes_on(seed):
    split = settled(4, seed, rooms=7, wanting=2)
    (leader,) = split.serving()
    split.mesh.pause(leader, split.mesh.world.chance.uniform(12, 40))
    split.mesh.world.run_for(60)
    split.mesh.world.run_until(split.one_serves, within=HEALED_S)


@every_seed
def test_where_word_comes_too_late_two_lead_for_a_while_and_memory_is_lent_to_one(seed):
    split = split_mesh(3, seed, rooms=[7, 7, 14], wanting=2, latency_min=0.3, latency_max=2.5, loss=0.4)
    split.mesh.world.cut("n0", "n1")
    split.mesh.world.cut("n1", "n0")
    split.mesh.world.run_for(split.mesh.world.chance.uniform(10, 40))
    split.mesh.world.set_conditions(NetworkConditions())
    split.mesh.world.heal()
    split.mesh.world.run_until(split.one_serves, within=HEALED_S)
