"""Estimates of what the cache holds, and of the threshold of eviction by coldness."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from citadel_maintenance.cache.sizes import MOST_GROUPS, Sizes

BUCKETS = st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["a@1 own", "b@1 64"])), min_size=1, max_size=60)
BYTES = {"a@1 own": 100, "b@1 64": 30}


def filled(entries):
    sizes = Sizes()
    for bucket, group in entries:
        sizes.add_sample(group, BYTES[group])
        sizes.add_kept(group, bucket)
    return sizes


@given(BUCKETS, st.floats(0.01, 1.0))
def test_buckets_up_to_the_threshold_make_up_the_excess_and_no_more(entries, share):
    sizes = filled(entries)
    excess = sizes.total * share
    bucket, within = sizes.threshold(excess)
    colder = sum(BYTES[group] for other, group in entries if other > bucket)
    here = sum(BYTES[group] for other, group in entries if other == bucket)
    assert colder < excess <= colder + here + 1e-6
    assert within == excess - colder or abs(within - (excess - colder)) < 1e-6


@given(BUCKETS)
def test_saved_sizes_are_restored_unchanged(entries):
    sizes = filled(entries)
    copy = Sizes.from_json(orjson.loads(orjson.dumps(sizes.to_json())))
    assert copy == sizes
    assert copy.statistics(complete=True) == sizes.statistics(complete=True)


def test_statistics_sum_up_the_entries_that_stay_by_model():
    sizes = filled([(0, "a@1 own"), (0, "a@1 own"), (0, "b@1 64")])
    sizes.add_sample("a@1 64", 10)
    sizes.add_kept("a@1 64", None)
    sizes.evicted("b@1 64")
    assert sizes.statistics(complete=False) == {
        "entries": 3,
        "bytes": 210,
        "models": {"a@1": {"entries": 3, "bytes": 210}},
        "complete": False,
    }


def test_the_number_of_groups_is_bounded():
    sizes = Sizes()
    for number in range(3 * MOST_GROUPS):
        sizes.add_sample(f"m@{number} own", 10)
        sizes.add_kept(f"m@{number} own", 1)
    assert len(sizes.kept) <= MOST_GROUPS + 1
    assert len(sizes.coldness[1]) <= MOST_GROUPS + 1
    assert sizes.total == 3 * MOST_GROUPS * 10
