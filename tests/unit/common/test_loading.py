"""Loading leaves the garbage collector as it was, and what was loaded out of its sight."""

import gc

import pytest

from citadel_common.loading import loading


def collecting():
    return gc.isenabled()


def test_nothing_is_collected_while_modules_load():
    before = gc.get_freeze_count()
    with loading():
        assert not collecting()
        kept = [[] for _ in range(1000)]
    assert collecting()
    assert gc.get_freeze_count() >= before + len(kept)


def test_a_module_that_cannot_be_loaded_leaves_the_collector_on():
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert collecting()
