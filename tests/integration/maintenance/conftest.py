"""A maintenance worker shared by the tests of a module, and calls of its tasks."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.celery_client import TIMEOUT, PlainClient
from tests.support.engine_db import EngineDatabase
from tests.support.maintenance import MaintenanceProcess
from tests.support.postgres_server import PostgresProcess

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def dsn(postgres_server: PostgresProcess) -> Iterator[str]:
    """Yield the DSN of an empty database."""
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def runs(dsn: str) -> Iterator[EngineDatabase]:
    """Yield the database's runs, to read and change them."""
    with EngineDatabase(dsn) as db:
        yield db


@pytest.fixture(scope="module")
def maintenance(redis_url: str, dsn: str) -> Iterator[MaintenanceProcess]:
    """Yield the worker."""
    with MaintenanceProcess(redis_url, dsn) as process:
        yield process


@pytest.fixture
def ask(maintenance: MaintenanceProcess, plain: PlainClient) -> Ask:
    """Return a function that calls a task by its name and returns its report."""
    return lambda name, **kwargs: asked(plain, name, **kwargs)


def asked(plain: PlainClient, name: str, **kwargs: Any) -> dict[str, Any]:
    """Call a task and return its report."""
    report: dict[str, Any] = plain.publish(name, kwargs=kwargs, queue="maintenance").get(timeout=TIMEOUT)
    return report
