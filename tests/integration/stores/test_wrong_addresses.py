"""What can never work ends a process with status 78 and a line without secrets; what may pass is waited for."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from citadel_common.settings.common import EX_CONFIG, StoreSettings
from citadel_common.stores.postgres_refusals import problem_of
from citadel_common.stores.startup_checks import redis_problem
from tests.support.child import free_port
from tests.support.old_redis import answering
from tests.support.planted import POSTGRES_PASSWORD, REDIS_PASSWORD, planted
from tests.support.private_ca import PrivateAuthority
from tests.support.redis_addresses import RIGHTS, limited_user, serving, tls_binary
from tests.support.redis_server import redis_binary
from tests.support.worker import variables

WRONG = planted("wrong-password")
PROCESSES = (
    "citadel_embeddings",
    "citadel_orchestration",
    "citadel_orchestration.api",
    "citadel_monitoring",
    "citadel_monitoring.exporter",
    "citadel_maintenance",
    "citadel_maintenance.beat",
)
WITH_POSTGRES = ("citadel_orchestration", "citadel_monitoring.exporter", "citadel_orchestration.migrate")


def ended(module, **settings):
    """Return the exit status and the last line of a process that is started with these settings."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=variables(settings | {"API__KEYLESS": "loopback"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert WRONG not in done.stderr + done.stdout
    return done.returncode, done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("module", PROCESSES)
def test_every_process_ends_when_redis_refuses_the_password(redis_server, module):
    url = redis_server.url.replace(REDIS_PASSWORD, WRONG)
    line = "citadel: wrong setting: CITADEL_BROKER_URL: Redis refuses the user or the password"
    assert ended(module, BROKER_URL=url) == (EX_CONFIG, line)


@pytest.mark.parametrize("module", WITH_POSTGRES)
def test_processes_end_when_postgresql_refuses_the_password(redis_server, postgres_server, module):
    dsn = postgres_server.dsn.replace(POSTGRES_PASSWORD, WRONG)
    line = "citadel: wrong setting: CITADEL_POSTGRES_DSN: PostgreSQL refuses the user or the password"
    assert ended(module, BROKER_URL=redis_server.url, POSTGRES_DSN=dsn) == (EX_CONFIG, line)


def redis_says(url):
    return redis_problem(SecretStr(url), StoreSettings())


def test_a_database_that_redis_does_not_have_is_named(redis_server):
    assert redis_says(redis_server.database(99)) == "Redis has no database of this number"
    assert redis_says(redis_server.database(15)) is None


def test_a_redis_that_is_down_is_waited_for():
    assert redis_says(f"redis://127.0.0.1:{free_port()}/0") is None
    assert redis_says("redis://no-such-host.invalid:6379/0") is None
    assert redis_says(f"unix:///no/such/{free_port()}.sock") is None


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["cluster-enabled yes"], "is a Redis Cluster"),
        (["sentinel monitor main 127.0.0.1 1 1"], "is a Sentinel"),
    ],
)
def test_servers_of_another_mode_are_refused(lines, problem):
    def answers(port, _):
        return redis.Redis(host="127.0.0.1", port=port)

    with serving(redis_binary(), "port {port}", "bind 127.0.0.1", *lines, answers=answers) as (port, _):
        assert redis_says(f"redis://127.0.0.1:{port}/0").startswith(problem)


UNKNOWN = b"-ERR unknown command `HELLO`, with args beginning with: \r\n"
NOT_ALONE = b"-ERR wrong number of arguments for 'hello' command\r\n"
TOO_OLD = "is a Redis before 6.2, the oldest that works"


def said_by(version):
    """Return the answer to HELLO of a Redis of that version."""
    fields = {"server": "redis", "version": version, "mode": "standalone"}
    words = "".join(f"${len(word)}\r\n{word}\r\n" for field in fields.items() for word in field)
    return f"%{len(fields) + 1}\r\n{words}$5\r\nproto\r\n:3\r\n".encode()


@pytest.mark.parametrize(
    ("hello", "hello_3", "problem"),
    [
        (UNKNOWN, UNKNOWN, TOO_OLD),
        (NOT_ALONE, said_by("6.0.16"), TOO_OLD),
        (said_by("6.1.240"), said_by("6.1.240"), "is Redis 6.1.240; 6.2 is the oldest that works"),
        (said_by("6.2.0"), said_by("6.2.0"), None),
        (said_by("10.0.1"), said_by("10.0.1"), None),
        (said_by("df-v1.34.0"), said_by("df-v1.34.0"), None),
    ],
    ids=["5", "6.0", "6.2 before its release", "6.2", "10", "versions of another kind"],
)
def test_a_redis_that_is_too_old_is_refused(hello, hello_3, problem):
    with answering(hello, hello_3) as port:
        assert redis_says(f"redis://127.0.0.1:{port}/0") == problem


def test_a_user_who_may_not_ask_for_the_time_is_refused():
    with limited_user(RIGHTS.replace("+time", "")) as url:
        assert "grant it to the user (+time)" in redis_says(url)


def test_a_certificate_that_nobody_vouches_for_is_refused():
    binary = tls_binary()
    with tempfile.TemporaryDirectory() as name:
        authority = PrivateAuthority(Path(name))
        server = authority.sign("elsewhere.test")
        files = (f"tls-cert-file {server.file}", f"tls-key-file {server.key}", f"tls-ca-cert-file {authority.file}")
        lines = ("port 0", "tls-port {port}", "bind 127.0.0.1", "tls-auth-clients no", *files)

        def answers(port, _):
            return redis.Redis(host="127.0.0.1", port=port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False)

        with serving(binary, *lines, answers=answers) as (port, _):
            url = f"rediss://127.0.0.1:{port}/0"
            assert "certificate is not trusted" in redis_says(url)
            assert "certificate is not trusted" in redis_says(f"{url}?ssl_ca_certs={authority.file}")
            assert redis_says(f"{url}?ssl_ca_certs={authority.file}&ssl_check_hostname=false") is None
            assert redis_says(f"{url}?ssl_cert_reqs=CERT_NONE") is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"password": WRONG}, "refuses the user or the password"),
        ({"password": ""}, "wants a password"),
        ({"user": "somebody"}, "pg_hba.conf"),
        ({"dbname": "nowhere"}, "no such database"),
        ({"sslmode": "require"}, "does not speak TLS"),
        ({"options": "-c no_such_setting=1"}, 'unrecognized configuration parameter "no_such_setting"'),
        ({"options": "-c shared_buffers=1GB"}, "shared_buffers"),
        ({"service": "none", "host": ""}, "service"),
    ],
)
def test_what_postgresql_refuses_for_good_is_named(monkeypatch, postgres_server, changes, problem):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    said = problem_of(SecretStr(make_conninfo(postgres_server.dsn, **changes)), None, patience=5.0)
    assert problem in said
    assert WRONG not in said


def test_a_postgresql_that_is_down_is_waited_for(postgres_server):
    dsn = postgres_server.dsn
    for place in ("127.0.0.1:1", "no-such-host.invalid:5432"):
        assert (
            problem_of(SecretStr(dsn.replace(f"127.0.0.1:{postgres_server.port}", place)), None, patience=2.0) is None
        )


def test_a_host_that_works_beside_one_that_is_down_works(postgres_server):
    dsn = postgres_server.dsn.replace("127.0.0.1:", f"127.0.0.1:{free_port()},127.0.0.1:")
    assert problem_of(SecretStr(f"{dsn}?target_session_attrs=read-write"), None, patience=5.0) is None
