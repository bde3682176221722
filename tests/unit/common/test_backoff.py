"""Backoff: full jitter under a growing, capped bound."""

from hypothesis import given
from hypothesis import strategies as st

from citadel_common.backoff import full_jitter


@given(st.integers(0, 100_000), st.floats(0.001, 10), st.floats(1, 10), st.floats(0.001, 100))
def test_a_delay_is_within_its_bound(attempt, base, factor, cap):
    delay = full_jitter(attempt, base=base, factor=factor, cap=cap)
    assert 0 <= delay <= cap
    if attempt == 0:
        assert delay <= base


def test_delays_use_the_whole_range():
    delays = [full_jitter(3, base=1, factor=2, cap=60) for _ in range(500)]
    assert min(delays) < 1
    assert 7 < max(delays) <= 8
