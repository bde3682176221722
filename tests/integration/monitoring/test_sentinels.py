"""A Redis behind real sentinels."""

import os

import pytest
import redis

from tests.integration.monitoring.watched import REDIS_KEY, open_files, problems
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
    """Yield the URL of a sentinel that watches the broker."""
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


def test_the_master_behind_a_sentinel_is_checked(watched, sentinel):
    report = watched.check(broker_url=f"{sentinel}/0", result_url=watched.broker.url)
    assert problems(report) == {}
    assert "geheim" not in report["services"]["broker"]["detail"]


def test_one_of_several_sentinels_is_enough(watched, sentinel):
    url = sentinel.replace("127.0.0.1:", f"127.0.0.1:{free_port()};127.0.0.1:")
    report = watched.check(broker_url=f"{url}/0", result_url=watched.broker.url)
    assert problems(report) == {}


def test_a_master_unknown_to_the_sentinel_is_down(watched, sentinel):
    report = watched.check(
        broker_url=f"{sentinel}/0", result_url=watched.broker.url, stores={"sentinel_master": "other"}
    )
    assert list(problems(report)) == ["broker"]


def test_checks_leave_no_connection_open(watched, sentinel):
    watched.check(broker_url=f"{sentinel}/0", result_url=watched.broker.url)
    files = open_files()
    for _ in range(3):
        watched.check(broker_url=f"{sentinel}/0", result_url=watched.broker.url)
    eventually(lambda: open_files() <= files)
