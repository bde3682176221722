"""Fixtures of the engine's tests."""

import pytest


@pytest.fixture(scope="module")
def fleet_of_two(platform):
    """Two orchestration and two embeddings workers, shared by a module."""
    platform.orchestration()
    platform.embeddings()
    platform.orchestration()
    platform.embeddings()
    return platform


@pytest.fixture
def workers(fleet_of_two):
    """Them, with doubles that are healthy and have counted nothing."""
    fleet_of_two.doubles.reset()
    return fleet_of_two
