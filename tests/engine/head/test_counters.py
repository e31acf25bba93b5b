from mesh_llm.engine.head.counters import Counters
from mesh_llm.engine.head.generation import Timings


def values(counters: Counters, under_way: int = 0) -> dict[str, float]:
    lines = counters.exposition(under_way, at_once=4).splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#")]
    return {name.removeprefix("llamacpp:"): float(value) for name, value in pairs}


def test_totals_grow_with_each_answer_and_speeds_are_of_the_time_since_the_last_look():
    counters = Counters()
    counters.count(Timings(100, 20, 500.0, 1000.0, cached_tokens=50))
    counters.count(Timings(10, 80, 500.0, 1000.0))
    seen = values(counters)
    assert (seen["prompt_tokens_total"], seen["prompt_tokens_cached_total"]) == (60, 50)
    assert (seen["tokens_predicted_total"], seen["tokens_predicted_seconds_total"]) == (100, 2)
    assert (seen["prompt_tokens_seconds"], seen["predicted_tokens_seconds"]) == (60, 50)
    assert seen["n_tokens_max"] == 120
    later = values(counters)
    assert (later["tokens_predicted_total"], later["predicted_tokens_seconds"]) == (100, 0)


def test_requests_beyond_those_worked_on_are_deferred():
    seen = values(Counters(), under_way=6)
    assert (seen["requests_processing"], seen["requests_deferred"]) == (4, 2)
