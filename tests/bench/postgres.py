"""A PostgreSQL server for benchmarks: durable, as in production."""

import contextlib
from collections.abc import Iterator

from tests.support.postgres_server import PostgresProcess


@contextlib.contextmanager
def postgres_process() -> Iterator[str]:
    """Run a server; give the URL of an empty database. Commits are flushed to the disk."""
    with PostgresProcess(settings=()) as server:
        yield server.dsn
