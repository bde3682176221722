"""Errors of the embedded stack."""

from pathlib import Path


class DevError(Exception):
    """The stack cannot run."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__doc__)


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


class NoPostgres(DevError):
    """There is no PostgreSQL server; run scripts/setup, or install postgresql (18 or near it)."""


class OtherPostgres(DevError):
    """Another major version of PostgreSQL created the data directory."""

    def __init__(self, directory: Path, made_by: str, found: int) -> None:
        super().__init__(
            f"{directory} was created by PostgreSQL {made_by}, and PostgreSQL {found} cannot read it; convert it with "
            f"pg_upgrade, or move it away to start with an empty database"
        )


class StartFailed(DevError):
    """A child process did not start."""

    def __init__(self, reason: str, tail: str = "") -> None:
        super().__init__(f"{reason}\n{tail}" if tail else reason)
