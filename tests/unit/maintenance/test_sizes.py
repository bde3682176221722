"""Estimates of how much the cache holds, and where the removal of the coldest ends."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from citadel_maintenance.cache.sizes import MOST_GROUPS, Sizes

BUCKETS = st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["a@1 own", "b@1 64"])), min_size=1, max_size=60)
BYTES = {"a@1 own": 100, "b@1 64": 30}


def filled(entries):
    sizes = Sizes()
    for bucket, group in entries:
        sizes.measured(group, BYTES[group])
        sizes.keep(group, bucket)
    return sizes


@given(BUCKETS, st.floats(0.01, 1.0))
def test_the_coldest_buckets_make_up_the_excess_and_no_more(entries, share):
    sizes = filled(entries)
    excess = sizes.total * share
    bucket, within = sizes.threshold(excess)
    colder = sum(BYTES[group] for other, group in entries if other > bucket)
    here = sum(BYTES[group] for other, group in entries if other == bucket)
    assert colder < excess <= colder + here + 1e-6
    assert within == excess - colder or abs(within - (excess - colder)) < 1e-6


@given(BUCKETS)
def test_a_saved_state_goes_on_the_same(entries):
    sizes = filled(entries)
    copy = Sizes.from_json(orjson.loads(orjson.dumps(sizes.to_json())))
    assert copy == sizes
    assert copy.statistics(complete=True) == sizes.statistics(complete=True)


def test_statistics_are_by_model_and_of_what_stays():
    sizes = filled([(0, "a@1 own"), (0, "a@1 own"), (0, "b@1 64")])
    sizes.measured("a@1 64", 10)
    sizes.keep("a@1 64", None)
    sizes.evicted("b@1 64")
    assert sizes.statistics(complete=False) == {
        "entries": 3,
        "bytes": 210,
        "models": {"a@1": {"entries": 3, "bytes": 210}},
        "complete": False,
    }


def test_any_number_of_groups_takes_bounded_space():
    sizes = Sizes()
    for number in range(3 * MOST_GROUPS):
        sizes.measured(f"m@{number} own", 10)
        sizes.keep(f"m@{number} own", 1)
    assert len(sizes.kept) <= MOST_GROUPS + 1
    assert len(sizes.coldness[1]) <= MOST_GROUPS + 1
    assert sizes.total == 3 * MOST_GROUPS * 10
