"""A maintenance worker that the tests of a module share, and how they ask it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.celery_client import TIMEOUT, PlainClient
from tests.support.maintenance import MaintenanceProcess
from tests.support.postgres_server import PostgresProcess
from tests.support.record import Record

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def dsn(postgres_server: PostgresProcess) -> Iterator[str]:
    """An empty record."""
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def runs(dsn: str) -> Iterator[Record]:
    """The same, for the test's own eyes and hands."""
    with Record(dsn) as record:
        yield record


@pytest.fixture(scope="module")
def maintenance(redis_url: str, dsn: str) -> Iterator[MaintenanceProcess]:
    """The worker."""
    with MaintenanceProcess(redis_url, dsn) as process:
        yield process


@pytest.fixture
def ask(maintenance: MaintenanceProcess, plain: PlainClient) -> Ask:
    """Ask for a task by its name, as a client that knows nothing else does; its report."""
    return lambda name, **kwargs: asked(plain, name, **kwargs)


def asked(plain: PlainClient, name: str, **kwargs: Any) -> dict[str, Any]:
    """Return the report of a task."""
    report: dict[str, Any] = plain.publish(name, kwargs=kwargs, queue="maintenance").get(timeout=TIMEOUT)
    return report
