"""The PostgreSQL server, which stores runs and batches."""

import secrets
import struct

from citadel_client.dev.cluster import ROLE, Cluster, Programs
from citadel_client.dev.home import Home, write_private
from citadel_client.dev.ports import HOST, answers
from citadel_client.dev.unprivileged import command_as_owner

SETTINGS = (
    f"listen_addresses={HOST}",
    "unix_socket_directories=",
    "fsync=on",
    "shared_buffers=64MB",
    "max_connections=100",
    "max_wal_size=256MB",
)
PROTOCOL_3 = 3 << 16


class PostgresServer:
    """Configuration of the server.

    The role's password is in a file next to the data: who can read one can read the other.
    """

    name = "postgres"

    def __init__(self, home: Home, port: int) -> None:
        self.port = port
        self._home = home
        self._cluster = Cluster(home.database, Programs.find())
        self._secret = home.database.with_name("postgres.password")

    @property
    def dsn(self) -> str:
        """URL with the password; valid after `prepare`."""
        return f"postgresql://{ROLE}:{self._secret.read_text()}@{HOST}:{self.port}/{ROLE}"

    def prepare(self) -> None:
        """Create the data directory if it does not exist.

        Raises:
            DevError: It cannot be created, or another version created it.
        """
        known = self._secret.is_file()
        if not known:
            self._secret.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._secret, secrets.token_urlsafe(24))
        if not self._cluster.exists:
            self._cluster.create(self._secret.read_text())
            return
        self._cluster.check()
        if not known:
            self._cluster.set_password(self._secret.read_text())

    def command(self) -> list[str]:
        """Return the command line."""
        return command_as_owner(self._cluster.postmaster(self.port, SETTINGS), self._cluster.directory)

    def ready(self) -> bool:
        """Return whether the server has started, and recovered if it had to."""
        return serves(self.port)


def serves(port: int) -> bool:
    """Return whether PostgreSQL on the port asks for a password; while it starts or recovers it answers an error.

    The start message is written by hand, so that the command needs no PostgreSQL driver.
    """
    parameters = f"user\0{ROLE}\0database\0{ROLE}\0\0".encode()
    message = struct.pack("!ii", 8 + len(parameters), PROTOCOL_3) + parameters
    return answers(port, message, b"SCRAM-SHA-256")
