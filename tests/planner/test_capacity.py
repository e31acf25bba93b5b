import pytest

from mesh_llm.core.errors import RequestRefused
from mesh_llm.core.machine import Device, Machine
from mesh_llm.planner.capacity import memory_for_models, shares, with_devices

GB = 1_000_000_000
BIG = Device("CUDA0", "big", 80 * GB, 60 * GB)
SMALL = Device("CUDA1", "small", 24 * GB, 20 * GB)
LAPTOP = Machine(8, 16 * GB, 14 * GB, ())
SERVER = Machine(64, 512 * GB, 500 * GB, (BIG, SMALL))


def test_a_machine_without_gpu_gives_three_quarters_of_its_memory():
    assert memory_for_models(LAPTOP, None) == 12 * GB


def test_what_other_programs_hold_is_not_counted():
    assert memory_for_models(Machine(8, 16 * GB, 5 * GB, ()), None) == 5 * GB


def test_gpus_give_what_they_have_free_less_a_little():
    assert memory_for_models(SERVER, None) == 76 * GB


def test_the_user_s_own_limit_lowers_but_never_raises():
    assert memory_for_models(LAPTOP, 4 * GB) == 4 * GB
    assert memory_for_models(LAPTOP, 400 * GB) == 12 * GB


def test_only_the_chosen_devices_count_whatever_their_case():
    assert with_devices(SERVER, ["cuda1"]).devices == (SMALL,)
    assert with_devices(SERVER, []).devices == (BIG, SMALL)
    assert with_devices(SERVER, ["CPU"]).devices == ()


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(RequestRefused, match=r"no device CUDA7 here; --device takes CPU, CUDA0, CUDA1"):
        with_devices(SERVER, ["CUDA7"])


def test_chosen_devices_share_by_their_free_memory():
    assert shares([BIG, SMALL], [BIG, SMALL]) == ()
    assert shares([BIG, SMALL], [SMALL]) == (0.0, 1.0)
    third = Device("CUDA2", "third", 8 * GB, 8 * GB)
    assert shares([BIG, SMALL, third], [BIG, SMALL]) == pytest.approx((0.75, 0.25, 0.0))
