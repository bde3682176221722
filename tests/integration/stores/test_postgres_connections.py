"""Connections that PostgreSQL takes, against those that a process may open."""

from collections.abc import Iterator

import psycopg
import pytest

from citadel_common.settings.common import EX_CONFIG
from tests.integration.api.servers import Api
from tests.integration.stores.test_wrong_addresses import ended
from tests.support.fixtures import require_postgres
from tests.support.maintenance import MaintenanceProcess
from tests.support.postgres_server import FAST, PostgresProcess
from tests.support.redis_server import RedisProcess

SMALL = "(max_connections is 10, of which 3 are reserved)"


@pytest.fixture(scope="module")
def small() -> Iterator[PostgresProcess]:
    """A server that takes ten connections, three of them from superusers."""
    require_postgres()
    with PostgresProcess(settings=(*FAST, "max_connections=10"), makes_roles=True) as server:
        yield server


@pytest.fixture(scope="module")
def dsn(small: PostgresProcess) -> Iterator[str]:
    with small.database() as dsn:
        yield dsn


@pytest.mark.parametrize(
    ("module", "settings", "own"),
    [
        ("citadel_orchestration", {}, 10),
        ("citadel_maintenance", {}, 10),
        ("citadel_orchestration.api", {"API__WORKERS": "2", "POSTGRES__POOL_SIZE": "2"}, 8),
    ],
)
def test_a_process_that_can_never_open_its_connections_ends_at_its_start(
    redis_server: RedisProcess, dsn: str, module: str, settings: dict[str, str], own: int
) -> None:
    status, line = ended(module, BROKER_URL=redis_server.url, POSTGRES_DSN=dsn, **settings)
    assert status == EX_CONFIG
    assert f"this process may open {own} connections, and PostgreSQL takes 7 {SMALL}" in line
    assert "CITADEL_POSTGRES__POOL_SIZE" in line


def test_a_process_that_fits_starts_and_warns_where_others_are_in_its_way(redis_server: RedisProcess, dsn: str) -> None:
    few = {"POSTGRES__POOL_SIZE": 3}
    with MaintenanceProcess(redis_server.url, dsn, few) as alone:
        assert not alone.events("postgres_connections_short")
    others = [psycopg.connect(dsn) for _ in range(5)]
    try:
        with MaintenanceProcess(redis_server.url, dsn, few) as crowded:
            [warning] = crowded.events("postgres_connections_short")
    finally:
        for other in others:
            other.close()
    assert (warning["own"], warning["limit"], warning["free"]) == (3, 7, 2)


def test_the_limit_of_the_role_counts_too(redis_server: RedisProcess, small: PostgresProcess, dsn: str) -> None:
    small.execute("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 2")
    narrow = psycopg.conninfo.make_conninfo(dsn, user="narrow", password="narrow")
    status, line = ended(
        "citadel_maintenance", BROKER_URL=redis_server.url, POSTGRES_DSN=narrow, POSTGRES__POOL_SIZE="3"
    )
    assert status == EX_CONFIG
    assert "PostgreSQL takes 2 (CONNECTION LIMIT of the role)" in line


def test_the_api_with_one_process_fits(
    redis_server: RedisProcess, dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = {"BROKER_URL": redis_server.url, "POSTGRES_DSN": dsn, "API__WORKERS": "1", "POSTGRES__POOL_SIZE": "2"}
    api = Api({f"CITADEL_{name}": value for name, value in settings.items()}, tmp_path_factory.mktemp("api") / "log")
    api.kill_all()
