from mesh_llm.engine.restart import FailureHistory, GiveUp, Retry


def test_a_first_failure_is_retried_after_a_second():
    assert FailureHistory().after_failure(ready_s=0).decide() == Retry(after_s=1.0, attempt=1)


def test_the_wait_doubles():
    twice = FailureHistory().after_failure(0).after_failure(0)
    assert twice.decide() == Retry(after_s=2.0, attempt=2)


def test_three_failures_in_a_row_end_it():
    thrice = FailureHistory().after_failure(0).after_failure(5).after_failure(0)
    assert thrice.decide() == GiveUp(failures=3)


def test_a_minute_of_health_forgives_what_was_before():
    history = FailureHistory().after_failure(0).after_failure(0).after_failure(ready_s=60)
    assert history.decide() == Retry(after_s=1.0, attempt=1)
