"""A real PgBouncer of one's own, in transaction mode."""

import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from citadel_client.dev.cluster import ROLE, environment
from citadel_client.dev.unprivileged import command_as_owner, give
from tests.support.child import DIE_WITH_PARENT, free_port
from tests.support.polling import eventually
from tests.support.postgres_server import PASSWORD, PostgresProcess
from tests.support.required import lacking

START_ATTEMPTS = 5
# Few server connections, so that clients have to share them; no start-up parameter is waved through.
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
ignore_startup_parameters =
logfile = {folder}/log
"""


def pgbouncer_binary() -> str:
    """Return the path of the program; skip the test where there is none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return found or lacking("pgbouncer is not installed: `apt-get install pgbouncer`")


class PgBouncerProcess(AbstractContextManager["PgBouncerProcess"]):
    """A pooler in front of a server, for all databases and the tests' role."""

    def __init__(self, server: PostgresProcess) -> None:
        binary = pgbouncer_binary()
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="citadel-pgbouncer-")))
        give(self._folder)
        for _ in range(START_ATTEMPTS):
            self.port = free_port()
            if self._started(binary, server.port):
                return
        raise RuntimeError(f"no PgBouncer starts: {(self._folder / 'log').read_text()}")

    def dsn(self, direct: str) -> str:
        """Return the DSN that leads to the database of a direct one by way of this pooler."""
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{self.port}/{direct.rpartition('/')[2]}"

    def _started(self, binary: str, server: int) -> bool:
        files = {"users": f'"{ROLE}" "{PASSWORD}"\n'}
        files["ini"] = CONFIGURATION.format(server=server, port=self.port, folder=self._folder)
        for name, content in files.items():
            (self._folder / name).write_text(content)
            give(self._folder / name)
        self._child = subprocess.Popen(
            command_as_owner([*DIE_WITH_PARENT, binary, "--quiet", str(self._folder / "ini")], self._folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        return eventually(lambda: self._serves() or self._child.poll() is not None) and self._child.poll() is None

    def _serves(self) -> bool:
        try:
            psycopg.connect(self.dsn(f"/{ROLE}"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        self._stack.close()
