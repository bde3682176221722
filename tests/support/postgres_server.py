"""A real PostgreSQL server of one's own, and databases in it."""

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

from citadel_client.dev.cluster import ROLE, Cluster, Programs, environment
from citadel_client.dev.postgres import SETTINGS, serves
from citadel_client.dev.unprivileged import command_as_owner, give
from tests.support.child import DIE_WITH_PARENT, free_port
from tests.support.planted import POSTGRES_PASSWORD
from tests.support.polling import eventually

PASSWORD = POSTGRES_PASSWORD
TEMPLATE = "migrated"
START_ATTEMPTS = 5
TIMEOUT_S = 60
# A killed process loses nothing by the first two, only a machine that loses power. A database in which an autovacuum
# worker is busy could not be dropped: such workers are the superuser's.
FAST = ("fsync=off", "full_page_writes=off", "autovacuum_naptime=1d")


def migrate(dsn: str) -> None:
    """Apply the product's migrations."""
    from citadel_orchestration.db import migrate

    migrate.migrate(dsn)


def programs() -> Programs:
    """Return the programs of the version that CITADEL_TEST_POSTGRES_BIN names, else those that are found."""
    named = os.environ.get("CITADEL_TEST_POSTGRES_BIN")
    return Programs.of(Path(named)) if named else Programs.find()


class PostgresProcess:
    """A running server; its data survive `kill`, `stop` and `restart`, not the end of the block.

    Its role may create databases, and roles with `makes_roles`.
    """

    def __init__(
        self, prepare: Callable[[str], Any] = migrate, *, settings: Sequence[str] = FAST, makes_roles: bool = False
    ) -> None:
        self._prepare = prepare
        self._settings = settings
        self._numbers = itertools.count(1)
        self._dir = tempfile.TemporaryDirectory(prefix="citadel-postgres-")
        self._cluster = Cluster(Path(self._dir.name) / "data", programs())
        self._cluster.create(PASSWORD)
        if makes_roles:
            self._cluster.execute([f"ALTER ROLE {ROLE} CREATEROLE"])
            with (self._cluster.directory / "pg_hba.conf").open("a") as access:
                access.write("host all all 127.0.0.1/32 scram-sha-256\n")
        self._log = (Path(self._dir.name) / "log").open("ab")
        for _ in range(START_ATTEMPTS):
            self.port = free_port()
            if self._started():
                return
        raise RuntimeError(f"no PostgreSQL server starts: {self.log}")

    @property
    def dsn(self) -> str:
        """The URL of its first database, which is empty."""
        return self.dsn_of(ROLE)

    @property
    def log(self) -> str:
        """The text of its log."""
        return Path(self._log.name).read_text()

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return self._child.pid

    def dsn_of(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run a statement in the first database, outside a transaction."""
        with psycopg.connect(self.dsn, autocommit=True, connect_timeout=TIMEOUT_S) as connection:
            connection.execute(statement.encode())

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Give the URL of a new database with the product's tables and no rows, dropped after the block."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        try:
            yield self.dsn_of(name)
        finally:
            with contextlib.suppress(psycopg.OperationalError):  # a test may have left it stopped
                self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @cached_property
    def _template(self) -> str:
        self.execute(f"CREATE DATABASE {TEMPLATE}")
        self._prepare(self.dsn_of(TEMPLATE))
        return TEMPLATE

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """End it politely; its clients are cut off."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
            self._child.wait(TIMEOUT_S)

    def start(self) -> None:
        """Start it again on its port, after `kill` or `stop`; after a crash its last orphan must have ended."""
        eventually(self._started)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def demote(self) -> None:
        """Restart it as a standby: it answers and takes no changes."""
        self.stop()
        (self._cluster.directory / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Make a standby the primary; its connections stay open."""
        (self._cluster.directory / "promote").touch()
        os.kill(self.pid, signal.SIGUSR1)

    @contextlib.contextmanager
    def full(self, database: str, tables: Sequence[str]) -> Iterator[Callable[[], None]]:
        """Put tables onto a disk of their own that is full, for the block; give what makes room on it.

        Skips the test where this process may not mount one.
        """
        with tempfile.TemporaryDirectory(prefix="citadel-disk-") as disk:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False, capture_output=True
            )
            if mounted.returncode:
                pytest.skip("this process may mount no disk")
            place, ballast = Path(disk) / "place", Path(disk) / "ballast"
            try:
                place.mkdir()
                give(place)
                give(Path(disk))
                self.stop()
                self._cluster.execute([f"CREATE TABLESPACE small OWNER {ROLE} LOCATION '{place}'"])
                self.start()
                with psycopg.connect(self.dsn_of(database), autocommit=True) as connection:
                    for table in tables:
                        connection.execute(f"ALTER TABLE {table} SET TABLESPACE small".encode())
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while file.write(b"x" * 4096):
                        pass
                yield ballast.unlink
            finally:
                self.stop()
                subprocess.run(["umount", disk], check=True)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it accept connections and answer nothing, on those that are open too, for a while."""
        pids = [self.pid, *self._backends()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a connection that has just been closed
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and forget its data."""
        self.stop()
        self._log.close()
        self._dir.cleanup()

    def _backends(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def _started(self) -> bool:
        """Start; False when the port was taken meanwhile, or an orphan still uses the data."""
        postmaster = self._cluster.postmaster(self.port, [*SETTINGS, *self._settings])
        # the wish to die with this process does not outlive a change of user: so it comes after that
        self._child = subprocess.Popen(
            command_as_owner([*DIE_WITH_PARENT, *postmaster], self._cluster.directory),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=environment(),
        )
        return eventually(lambda: serves(self.port) or self._child.poll() is not None) and self._child.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
