"""Adaptive concurrency: more while it helps, less when calls become slow or fail, never less than one."""

from hypothesis import given
from hypothesis import strategies as st

from citadel_embeddings.endpoints.limiter import AdaptiveLimit


def call(limit, seconds=1.0, texts=8, at_once=1):
    for _ in range(at_once):
        limit.started()
    for _ in range(at_once):
        limit.succeeded(seconds=seconds, texts=texts)


def test_a_limit_grows_while_calls_fill_it_and_are_fast():
    limit = AdaptiveLimit(2.0, 6)
    for _ in range(200):
        call(limit, at_once=int(limit.value))
    assert limit.value == 6


def test_a_limit_that_calls_do_not_fill_does_not_grow():
    limit = AdaptiveLimit(4.0, 16)
    for _ in range(100):
        call(limit)
    assert limit.value == 4


def test_a_limit_shrinks_when_calls_become_slow():
    limit = AdaptiveLimit(8.0, 16)
    call(limit, seconds=1.0, at_once=8)
    for _ in range(200):
        call(limit, seconds=4.0, at_once=8)
        if limit.value <= 4:
            return
    raise AssertionError(limit.value)


def test_a_larger_call_may_take_longer():
    limit = AdaptiveLimit(4.0, 16)
    call(limit, seconds=0.1, texts=1)
    call(limit, seconds=3.2, texts=32)
    assert limit.value >= 4


def test_failures_shrink_a_limit_once_per_round():
    limit = AdaptiveLimit(8.0, 16)
    for _ in range(8):
        limit.started()
    for _ in range(8):
        limit.failed()
    assert limit.value == 4


@given(
    st.floats(1, 16),
    st.lists(st.tuples(st.sampled_from(["ok", "failed", "abandoned"]), st.floats(0, 100), st.integers(1, 64))),
)
def test_a_limit_stays_within_its_bounds(value, ends):
    limit = AdaptiveLimit(value, 16)
    for end, seconds, texts in ends:
        limit.started()
        if end == "ok":
            limit.succeeded(seconds=seconds, texts=texts)
        else:
            getattr(limit, end)()
        assert 1 <= limit.value <= 16
    assert limit.in_flight == 0
