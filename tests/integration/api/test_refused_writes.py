"""The API before a PostgreSQL that takes no writes: a standby, a full disk, lacking rights, no free connection."""

import asyncio
import contextlib

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from citadel_monitoring.health.probes.postgres import select_one
from tests.integration.api.servers import Api
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.refusals import ROW, WORDS, Refusals

WORKFLOW = {"steps": [{"step_id": "wait", "type": "wait", "parameters": {"signal": "go"}}]}
ANSWERS = {
    "57P01": (503, "store_unavailable"),
    "25006": (503, "store_unavailable"),
    "53100": (503, "store_full"),
    "53200": (503, "store_busy"),
    "57014": (503, "store_busy"),
    "40001": (503, "store_conflict"),
    "55P03": (503, "store_conflict"),
    "42501": (503, "store_misconfigured"),
    "42P01": (503, "store_misconfigured"),
    "58030": (503, "store_misconfigured"),
    "XX000": (503, "store_failed"),
    "P0001": (503, "store_failed"),
    "54000": (422, "store_rejected"),
    "22021": (422, "store_rejected"),
}


@contextlib.contextmanager
def client_of(dsn, redis, log):
    environment = {"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn, "CITADEL_API__WORKERS": "1"}
    api = Api(environment, log)
    try:
        with httpx.Client(base_url=api.url, timeout=30) as client:
            yield client
    finally:
        api.kill_all()


@pytest.fixture(scope="module")
def dsn(postgres_server):
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("api") / "log"


@pytest.fixture(scope="module")
def client(dsn, api_redis, log):
    with client_of(dsn, api_redis, log) as client:
        yield client


@pytest.fixture
def refusals(dsn):
    refusals = Refusals(dsn)
    yield refusals
    refusals.end()


def submitted(client):
    answer = client.post("/v1/workflows", json=WORKFLOW)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


@pytest.mark.parametrize(("code", "answer"), ANSWERS.items())
def test_submissions_commands_and_tasks_name_the_code_and_reads_go_on(client, log, refusals, code, answer):
    path = submitted(client)
    status, error = answer
    with refusals.everything(code):
        answers = [
            client.post("/v1/workflows", json=WORKFLOW),
            client.post(f"{path}/cancel"),
            client.post("/v1/embeddings/tasks", json={"text": "a", "model": "m"}),
        ]
        assert [(refused.status_code, refused.json()["code"]) for refused in answers] == [(status, error)] * 3
        assert all(f"SQLSTATE {code}" in refused.json()["detail"] for refused in answers)
        assert all(("retry-after" in refused.headers) == (status == 503) for refused in answers)
        assert client.get(path).status_code == 200
    submitted(client)
    assert not any(words in log.read_text() for words in (ROW, WORDS))


def test_a_full_disk_shows_in_readiness_and_health_and_passes(client, refusals):
    with refusals.everything("53100"):
        assert "the database's disk is full" in client.post("/v1/workflows", json=WORKFLOW).json()["detail"]
        eventually(lambda: "disk is full" in client.get("/readyz").text)
        assert client.get("/readyz").status_code == 503
        assert "disk is full" in client.get("/v1/health").json()["components"]["postgres"]["detail"]
    submitted(client)
    eventually(lambda: client.get("/readyz").status_code == 200)


def test_a_conflict_that_passes_is_not_seen(client, dsn, refusals):
    """The refusal ends itself: the function counts its calls in a sequence, which no rollback takes back."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE IF NOT EXISTS calls")
        connection.execute(
            "CREATE OR REPLACE FUNCTION conflict_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('calls') <= 2 THEN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE TRIGGER conflict_twice BEFORE INSERT ON runs EXECUTE FUNCTION conflict_twice()",
        )
        try:
            submitted(client)
            assert connection.execute("SELECT last_value >= 3 FROM calls").fetchone() == (True,)
        finally:
            connection.execute("DROP TRIGGER conflict_twice ON runs")


def test_a_database_without_a_free_connection_says_so(postgres_server, api_redis, tmp_path):
    with postgres_server.database() as dsn, client_of(dsn, api_redis, tmp_path / "log") as client:
        submitted(client)
        name = dsn.rpartition("/")[2]
        postgres_server.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        answer = client.post("/v1/workflows", json=WORKFLOW)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_busy")
        assert "TooManyConnections, SQLSTATE 53300" in answer.json()["detail"]
        postgres_server.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        eventually(lambda: client.post("/v1/workflows", json=WORKFLOW).status_code == 202)


def test_a_standby_is_named_and_its_promotion_is_found(api_redis, tmp_path):
    with PostgresProcess() as server, server.database() as dsn, client_of(dsn, api_redis, tmp_path / "log") as client:
        submitted(client)
        server.demote()
        eventually(lambda: client.get("/readyz").status_code == 503)
        eventually(lambda: "is a read-only standby" in client.get("/readyz").text)
        assert client.post("/v1/workflows", json=WORKFLOW).status_code == 503
        assert asyncio.run(select_one(SecretStr(dsn), 5.0)) == "is a read-only standby"
        assert "standby" in client.get("/v1/health").json()["components"]["postgres"]["detail"]
        server.promote()
        eventually(lambda: asyncio.run(select_one(SecretStr(dsn), 5.0)) is None)
        eventually(lambda: client.get("/readyz").status_code == 200)
        submitted(client)


def test_a_disk_that_is_really_full_is_named_and_room_on_it_is_enough(api_redis, tmp_path):
    with PostgresProcess() as server, server.database() as dsn:
        name = dsn.rpartition("/")[2]
        with server.full(name, ["runs"]) as make_room, client_of(dsn, api_redis, tmp_path / "log") as client:
            definition = WORKFLOW | {"context": {"text": [str(number) for number in range(1000)]}}
            answers = (client.post("/v1/workflows", json=definition) for _ in range(1000))
            refused = next(answer for answer in answers if answer.status_code != 202)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
            assert refused.headers["retry-after"] == "30"
            assert "the database's disk is full: DiskFull, SQLSTATE 53100" in refused.json()["detail"]
            make_room()
            submitted(client)
