from meshllm.llm.breaker import Breaker


def test_cheap_failures_pause_up_to_a_minute() -> None:
    breaker = Breaker()

    assert [breaker.fail(0.0) for _ in range(6)] == [5, 10, 20, 40, 60, 60]


def test_costly_failures_rest_up_to_ten_minutes() -> None:
    breaker = Breaker()

    pauses = [breaker.fail(0.0, is_costly=True) for _ in range(8)]

    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]


def test_a_look_that_fails_in_between_does_not_forget_what_calls_have_cost() -> None:
    breaker = Breaker()
    breaker.fail(0.0, is_costly=True)
    breaker.fail(0.0)

    assert breaker.fail(100.0, is_costly=True) == 30
    assert (breaker.due, breaker.failures, breaker.is_resting) == (130.0, 3, True)


def test_a_success_begins_anew() -> None:
    breaker = Breaker()
    for is_costly in (True, True, False, False):
        breaker.fail(0.0, is_costly=is_costly)

    breaker.reset()

    assert (breaker.due, breaker.failures, breaker.is_resting) == (0.0, 0, False)
    assert (breaker.fail(0.0), breaker.fail(0.0, is_costly=True)) == (5, 15)
