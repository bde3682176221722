"""A Redis behind sentinels: real ones."""

import os

import pytest
import redis

from tests.integration.monitoring.watched import REDIS_KEY, open_files, troubles
from tests.support.child import free_port, spawn
from tests.support.polling import eventually
from tests.support.redis_server import redis_binary

CONFIGURATION = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor mymaster 127.0.0.1 {master} 1
sentinel auth-pass mymaster {password}
"""


@pytest.fixture(scope="module")
def sentinel(servers, tmp_path_factory):
    """The URL of a sentinel that watches the broker."""
    folder, port = tmp_path_factory.mktemp("sentinel"), free_port()
    file = folder / "sentinel.conf"
    file.write_text(CONFIGURATION.format(port=port, folder=folder, master=servers.broker.port, password=REDIS_KEY))
    with (folder / "log").open("ab") as log:
        child = spawn([redis_binary(), str(file), "--sentinel"], output=log, env=os.environ)
        try:
            with redis.Redis(port=port) as client:
                eventually(lambda: knows_the_master(client))
            yield f"sentinel://:{REDIS_KEY}@127.0.0.1:{port}"
        finally:
            child.kill()
            child.wait()


def knows_the_master(client):
    try:
        return client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "mymaster")
    except redis.RedisError:
        return None


def test_the_master_is_asked(watched, sentinel):
    report = watched.check(broker_url=f"{sentinel}/0", result_url=watched.broker.url)
    assert troubles(report) == {}
    assert "geheim" not in report["services"]["broker"]["detail"]


def test_one_sentinel_is_enough(watched, sentinel):
    url = sentinel.replace("127.0.0.1:", f"127.0.0.1:{free_port()};127.0.0.1:")
    report = watched.check(broker_url=f"{url}/0", result_url=watched.broker.url)
    assert troubles(report) == {}


def test_a_master_that_the_sentinel_does_not_know(watched, sentinel):
    report = watched.check(
        broker_url=f"{sentinel}/0", result_url=watched.broker.url, stores={"sentinel_master": "other"}
    )
    assert list(troubles(report)) == ["broker"]


def test_no_connection_is_left(watched, sentinel):
    watched.check(broker_url=f"{sentinel}/0", result_url=watched.broker.url)
    files = open_files()
    for _ in range(3):
        watched.check(broker_url=f"{sentinel}/0", result_url=watched.broker.url)
    eventually(lambda: open_files() <= files)
