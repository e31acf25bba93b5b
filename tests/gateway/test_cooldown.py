import itertools

from mesh_llm.gateway.cooldown import FIRST_PAUSE_S, PAUSE_S_MAX, REMEMBERED_MAX, Cooldowns


def length_of_pause(cooldowns: Cooldowns, now: float) -> float:
    return next(s for s in itertools.count() if not cooldowns.is_cooling("n", "m", now + s))


def test_each_failure_in_a_row_doubles_the_pause_up_to_a_bound():
    cooldowns, now, lengths = Cooldowns(), 0.0, []
    for _ in range(8):
        cooldowns.failed("n", "m", now)
        lengths.append(length_of_pause(cooldowns, now))
        now += 1000
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300]
    assert (lengths[0], lengths[-1]) == (FIRST_PAUSE_S, PAUSE_S_MAX)


def test_a_success_ends_it_and_the_next_failure_begins_anew():
    cooldowns = Cooldowns()
    cooldowns.failed("n", "m", 0)
    cooldowns.failed("n", "m", 0)
    cooldowns.succeeded("n", "m")
    assert not cooldowns.is_cooling("n", "m", 0)
    cooldowns.failed("n", "m", 0)
    assert length_of_pause(cooldowns, 0) == FIRST_PAUSE_S


def test_a_server_without_room_pauses_briefly_however_often():
    cooldowns = Cooldowns()
    for now in range(10):
        cooldowns.refused("n", "m", now)
    assert length_of_pause(cooldowns, 9) == FIRST_PAUSE_S
    cooldowns.failed("n", "m", 9)
    cooldowns.failed("n", "m", 9)
    before = length_of_pause(cooldowns, 9)
    cooldowns.refused("n", "m", 9)
    assert length_of_pause(cooldowns, 9) == before


def test_one_model_of_a_node_does_not_cool_the_others():
    cooldowns = Cooldowns()
    cooldowns.failed("n", "m", 0)
    assert not cooldowns.is_cooling("n", "other", 0)
    assert not cooldowns.is_cooling("other", "m", 0)


def test_only_so_many_are_remembered():
    cooldowns = Cooldowns()
    for number in range(REMEMBERED_MAX + 1):
        cooldowns.failed("n", str(number), number)
    assert not cooldowns.is_cooling("n", "0", 0)
    assert cooldowns.is_cooling("n", "1", 1)
