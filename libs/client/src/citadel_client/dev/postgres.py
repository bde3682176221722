"""The PostgreSQL server: the record of runs and batches."""

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
    """Its data and how it is started.

    The role's password lies beside the data, since it is worth as much and no more than they are.
    """

    name = "postgres"

    def __init__(self, home: Home, port: int) -> None:
        self.port = port
        self._home = home
        self._cluster = Cluster(home.database, Programs.find())
        self._secret = home.database.with_name("postgres.password")

    @property
    def dsn(self) -> str:
        """URL with the password, once prepared."""
        return f"postgresql://{ROLE}:{self._secret.read_text()}@{HOST}:{self.port}/{ROLE}"

    def prepare(self) -> None:
        """Make the data directory where there is none.

        Raises:
            DevError: It cannot be made, or is another version's.
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
        """The command line."""
        return command_as_owner(self._cluster.postmaster(self.port, SETTINGS), self._cluster.directory)

    def ready(self) -> bool:
        """Whether it serves: started, and recovered where it had to."""
        return serves(self.port)


def serves(port: int) -> bool:
    """Whether PostgreSQL asks for a password there; while it starts or recovers it answers with an error."""
    parameters = f"user\0{ROLE}\0database\0{ROLE}\0\0".encode()
    message = struct.pack("!ii", 8 + len(parameters), PROTOCOL_3) + parameters
    return answers(port, message, b"SCRAM-SHA-256")
