from mesh_llm.runtime.clock import Clock


def test_the_monotonic_clock_does_not_go_back():
    clock = Clock()
    assert clock.monotonic() <= clock.monotonic()


def test_the_epoch_clock_knows_this_century():
    assert Clock().epoch() > 1_700_000_000
