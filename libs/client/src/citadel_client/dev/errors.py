"""Why the stack cannot run."""

from pathlib import Path


class DevError(Exception):
    """The stack cannot run."""


class PortTaken(DevError):
    """Another program listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is taken by another program; choose one with --port, or --port 0 for any")


class AlreadyRunning(DevError):
    """Another `citadel dev` uses the same home."""

    def __init__(self, home: str, url: str) -> None:
        self.url = url
        super().__init__(f"citadel dev already runs on {home}{f', at {url}' if url else ''}")


class NoRedis(DevError):
    """There is no Redis server; run scripts/setup, or install redis-server or valkey-server."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class NoPostgres(DevError):
    """There is no PostgreSQL server; run scripts/setup, or install postgresql (18 or near it)."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class OtherPostgres(DevError):
    """The data directory is of another major version of PostgreSQL."""

    def __init__(self, directory: Path, made_by: str, found: int) -> None:
        super().__init__(
            f"{directory} was made by PostgreSQL {made_by}, and PostgreSQL {found} cannot read it; convert it with "
            f"pg_upgrade, or move it away to begin with an empty record"
        )


class StartFailed(DevError):
    """A child process did not come up."""

    def __init__(self, reason: str, tail: str = "") -> None:
        super().__init__(f"{reason}\n{tail}" if tail else reason)
