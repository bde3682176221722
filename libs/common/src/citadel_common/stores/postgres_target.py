"""The database as one part of Citadel uses it: the connection string, and the server's settings of its transactions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from citadel_common.settings.postgres_dsn import parameters_of, settings_in

USUAL: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
"""Settings that a role or a database may have other defaults of, and that Citadel's statements rely on."""
KEEPALIVES: Mapping[str, str] = {"keepalives_idle": "10", "keepalives_interval": "3", "keepalives_count": "3"}


@dataclass(frozen=True, kw_only=True)
class PostgresTarget:
    """The database, as one part of Citadel uses it.

    Attributes:
        conninfo: Libpq's connection string, password included.
        settings: Settings of the server by name.
        shown: Address for messages, without credentials.
    """

    conninfo: str = field(repr=False)
    settings: Mapping[str, str] = field(repr=False)
    shown: str

    @classmethod
    def of(
        cls,
        dsn: SecretStr,
        *,
        name: str,
        search_path: str | None = None,
        timeout: float | None = None,
        connect_timeout: float = 3.0,
        settings: Mapping[str, str] | None = None,
    ) -> "PostgresTarget":
        """Return a target; what the DSN says of the connection itself comes first.

        Args:
            dsn: Address of PostgreSQL.
            name: Application name that PostgreSQL shows, after `citadel-`.
            search_path: Schemas of Citadel's objects; the DSN's or the role's if None.
            timeout: Seconds that a statement, or a wait for a lock, may take; unlimited if None.
            connect_timeout: Seconds that a connection may take to open.
            settings: More settings of the server.

        Raises:
            ValueError: The DSN cannot be used; the message shows no secret.
        """
        given = parameters_of(dsn.get_secret_value())
        made, others = settings_in(given.pop("options", ""))
        limit = str(round((timeout or 0) * 1000))
        usual = {
            "connect_timeout": str(max(1, int(connect_timeout))),
            "application_name": f"citadel-{name}",
            "tcp_user_timeout": limit,
            **KEEPALIVES,
        }
        if "," in given.get("host", "") + given.get("hostaddr", ""):
            usual["target_session_attrs"] = "primary"
        always = {"client_encoding": "UTF8"} | ({"options": others} if others else {})
        own = {"statement_timeout": limit, "lock_timeout": limit, **(settings or {})}
        if search_path:
            own["search_path"] = search_path
        return cls(
            conninfo=make_conninfo("", **usual | given | always),
            settings={**made, **USUAL, **own},
            shown=_shown(given),
        )

    def assignments(self, *, local: str) -> str:
        """Return the settings as columns of a SELECT; `local` says in SQL whether they last one transaction only."""
        pairs = ((sql.quote(name), sql.quote(value)) for name, value in self.settings.items())
        return ", ".join(f"set_config({name}, {value}, {local})" for name, value in pairs)


def shown(dsn: SecretStr) -> str:
    """Return the address in a DSN for messages, without credentials."""
    return _shown(parameters_of(dsn.get_secret_value()))


def _shown(given: Mapping[str, str]) -> str:
    if "host" not in given and "hostaddr" not in given and "service" in given:
        return f"postgresql service {given['service']}"
    hosts = (given.get("hostaddr") or given.get("host", "localhost")).split(",")
    ports = given.get("port", "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(f"{_bracketed(host)}:{port or 5432}" for host, port in zip(hosts, ports, strict=True))
    return f"postgresql://{places}/{given.get('dbname', '')}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("/") else host
