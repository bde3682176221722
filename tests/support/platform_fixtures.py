"""Fixtures for tests that run workflows."""

from collections.abc import Iterator

import pytest

from tests.doubles.process import OllamaProcess
from tests.support.doubles import Doubles, doubles_with
from tests.support.engine_db import EngineDatabase
from tests.support.platform import Platform
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess


@pytest.fixture(scope="session")
def doubles(ollama: OllamaProcess) -> Iterator[Doubles]:
    """Run the doubles of this test process."""
    with doubles_with(ollama) as doubles:
        yield doubles


@pytest.fixture(scope="module")
def platform(redis_server: RedisProcess, postgres_server: PostgresProcess, doubles: Doubles) -> Iterator[Platform]:
    """Give a platform with empty stores, healthy doubles and no workers when a module begins."""
    redis_server.flush()
    doubles.reset()
    with (
        postgres_server.database() as dsn,
        Platform(redis=redis_server, dsn=dsn, doubles=doubles) as platform,
    ):
        yield platform


@pytest.fixture
def db(postgres_dsn: str) -> Iterator[EngineDatabase]:
    """Give an empty database without workers."""
    with EngineDatabase(postgres_dsn) as db:
        yield db
