"""Checks at a process's start: a store that answers and refuses for good ends it, with a line that names the setting.

A store that does not answer is no reason to end: the process waits for it. Wrong credentials are one: somebody has to
change them. The same refusal later, after the start, is an outage like others, which ends when the store's side does.
"""

import re
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import redis
from pydantic import SecretStr

from citadel_common.settings.common import CommonSettings, StoreSettings, refuse
from citadel_common.stores.redis import ERRORS, connect

PATIENCE = 2.0
"""Seconds that a check may wait for a connection, and again for an answer."""
Check = Callable[[], str | None]
"""Returns why the store refuses for good, or None."""
OLDEST = (6, 2)
"""Oldest version of Redis with the commands that workers use."""
MODES = {
    b"cluster": "is a Redis Cluster, which Celery's transport cannot use; use one server, or Sentinel",
    b"sentinel": "is a Sentinel; its URL starts with sentinel://",
}


def refuse_unusable(settings: CommonSettings, *, uses_cache: bool = True) -> None:
    """End the process with status 78 if one of its stores answers that it can never work with these settings."""
    checks = {name: check for name, check in _checks(settings) if uses_cache or name != "CITADEL_CACHE_URL"}
    with ThreadPoolExecutor(len(checks), thread_name_prefix="startup-checks") as threads:
        for name, problem in zip(checks, threads.map(lambda check: check(), checks.values()), strict=True):
            if problem is not None:
                refuse(f"{name}: {problem}")


def _checks(settings: CommonSettings) -> Iterator[tuple[str, Check]]:
    urls = {"broker_url": settings.broker_url, "result_url": settings.result_url, "cache_url": settings.cache_url}
    for name, url in urls.items():
        if url is not None:
            yield f"CITADEL_{name.upper()}", lambda url=url: redis_problem(url, settings.stores)  # type: ignore[misc]
    dsn: SecretStr | None = getattr(settings, "postgres_dsn", None)
    if dsn is not None:
        from citadel_common.stores.postgres_refusals import problem_of  # not every service has psycopg

        path: str | None = getattr(settings, "postgres").search_path  # noqa: B009  (not in the common settings)
        own: int = getattr(settings, "postgres_connections")  # noqa: B009
        yield "CITADEL_POSTGRES_DSN", lambda: problem_of(dsn, path, patience=PATIENCE, connections=own)
        direct: SecretStr | None = getattr(settings, "direct_dsn", None)
        if direct is not None:
            yield "CITADEL_POSTGRES__DIRECT_DSN", lambda: problem_of(direct, path, patience=PATIENCE)


def redis_problem(url: SecretStr, settings: StoreSettings) -> str | None:
    """Return why a Redis refuses for good; None if it works, or may work later."""
    limits = settings.model_copy(update={"timeout": PATIENCE, "connect_timeout": PATIENCE})
    with closing(connect(url, limits)) as client:
        try:
            said: Any = client.execute_command("HELLO")  # type: ignore[no-untyped-call]
            fields = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=False))
            problem = MODES.get(fields.get(b"mode", b"")) or _age_problem(fields.get(b"version", b""))
            return problem or _missing_right(client)
        except ERRORS as error:
            return _refusal(error)


def _age_problem(version: bytes) -> str | None:
    """Return that a Redis is too old; servers that count their versions in another way are believed to be new."""
    numbers = re.match(rb"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= OLDEST:
        return None
    return f"is Redis {version.decode(errors='replace')}; 6.2 is the oldest that works"


_SAID_OF_HELLO = ("unknown command", "wrong number of arguments for 'hello'")
"""Beginnings of the answers of Redis 5 and Redis 6.0 to a HELLO without arguments."""


def _missing_right(client: redis.Redis) -> str | None:
    try:
        client.time()
    except redis.exceptions.NoPermissionError:
        return "Redis refuses the command TIME, by which leases and deadlines are judged; grant it to the user (+time)"
    return None


def _refusal(error: BaseException) -> str | None:
    chain = list(_causes(error))
    if any(isinstance(cause, redis.exceptions.AuthenticationError) for cause in chain):
        return "Redis refuses the user or the password"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain):
        remedy = "name its authority in SSL_CERT_FILE or ssl_ca_certs, or see ssl_check_hostname"
        return f"Redis' certificate is not trusted: {remedy}"
    said = str(error).lower()
    if isinstance(error, redis.exceptions.ResponseError) and said.startswith(_SAID_OF_HELLO):
        return "is a Redis before 6.2, the oldest that works"
    if isinstance(error, redis.exceptions.ResponseError) and ("out of range" in said or "invalid db index" in said):
        return "Redis has no database of this number"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
