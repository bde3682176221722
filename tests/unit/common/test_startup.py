"""Loading leaves the garbage collector as it was, and what was loaded out of its sight."""

import gc

import pytest

from citadel_common.startup import gc_paused_imports


def collecting():
    return gc.isenabled()


def test_the_garbage_collector_is_off_during_imports():
    before = gc.get_freeze_count()
    with gc_paused_imports():
        assert not collecting()
        kept = [[] for _ in range(1000)]
    assert collecting()
    assert gc.get_freeze_count() >= before + len(kept)


def test_a_module_that_cannot_be_loaded_leaves_the_collector_on():
    with pytest.raises(ImportError), gc_paused_imports():
        raise ImportError
    assert collecting()
