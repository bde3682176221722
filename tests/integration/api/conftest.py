"""Fixtures of the API's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from citadel_common.settings.common import CommonSettings
from tests.integration.api.fake_worker import publish_catalog
from tests.integration.api.servers import Api, Program, RedisServer, until
from tests.integration.api.stack import Stack, open_stack
from tests.support.fixtures import require_redis
from tests.support.planted import CREDENTIALS
from tests.support.postgres_server import PostgresProcess

StartApi = Callable[..., Api]


@pytest.fixture(scope="module")
def api_redis() -> Iterator[RedisServer]:
    """A Redis server of the module's own."""
    require_redis()
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def start_api(
    api_redis: RedisServer, postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartApi]:
    """Start API servers on that Redis and a database; keywords are settings of the `api` fragment."""
    started: list[Api] = []

    def start(log: Path | None = None, **settings: object) -> Api:
        log = log or tmp_path_factory.mktemp("api") / "log"
        environment = {f"CITADEL_API__{name.upper()}": str(value) for name, value in settings.items()}
        common = {
            "CITADEL_BROKER_URL": api_redis.url,
            "CITADEL_POSTGRES_DSN": dsn,
            "CITADEL_API__WORKERS": "1",
        }
        started.append(Api(common | environment, log))
        return started[-1]

    with postgres_server.database() as dsn:
        yield start
        for api in started:
            api.kill_all()


@pytest.fixture(scope="module")
def api(start_api: StartApi, models: None) -> Api:
    """An API server with default settings, which has the fake models in its catalog."""
    return start_api()


@pytest.fixture(scope="module")
def models(api_redis: RedisServer) -> None:
    """Publish the fake models, without expiry."""
    publish_catalog(CommonSettings(broker_url=api_redis.url))
    api_redis.store.persist("citadel:models")


@pytest.fixture(scope="module")
def http(api: Api) -> Iterator[httpx.Client]:
    """A client of that server."""
    with httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as client:
        yield client


@pytest.fixture(scope="module")
def worker(api_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The fake worker."""
    log = tmp_path_factory.mktemp("worker") / "log"
    environment = {"CITADEL_BROKER_URL": api_redis.url, "CITADEL_WORKER__HEARTBEAT_INTERVAL": "0.5"}
    program = Program("tests.integration.api.fake_worker", environment, log)
    until(lambda: api_redis.store.hlen("citadel:workers") and api_redis.store.exists("citadel:models"), str(log))
    api_redis.store.persist("citadel:models")
    yield program
    program.kill_all()


@pytest.fixture(scope="module")
def stack(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The API with all servers and workers that runs need."""
    require_redis()
    with open_stack(postgres_server, tmp_path_factory.mktemp("api") / "log") as stack:
        yield stack
