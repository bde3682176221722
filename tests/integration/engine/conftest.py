"""Fixtures of the engine's tests."""

import pytest

from tests.support.engine_db import EngineDatabase


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
    """Return the workers, with doubles that are healthy and have counted nothing."""
    fleet_of_two.doubles.reset()
    return fleet_of_two


@pytest.fixture(scope="module")
def shared_dsn(postgres_server):
    """Return the URL of a database that the tests and examples of a module share."""
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def shared_record(shared_dsn):
    """Return the record in that database."""
    with EngineDatabase(shared_dsn) as db:
        yield db
