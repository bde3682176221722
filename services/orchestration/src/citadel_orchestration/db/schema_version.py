"""Version of the schema as a running process sees it: the migrations that its statements need."""

import threading

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.postgres import Database
from citadel_orchestration.db.migration_files import available

HELP = "`python -m citadel_orchestration.migrate` makes it, and says what is in its way"
_EXISTS = "SELECT to_regclass('migrations') IS NOT NULL"
_APPLIED = "SELECT name FROM migrations WHERE name = ANY(%s)"


class SchemaVersion:
    """Check whether the database is as new as this process; thread-safe. A database that is newer is fine.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_complete = threading.Event()

    def check(self) -> None:
        """Ask the database until it has once had all migrations: none is ever taken back.

        Raises:
            StoreUnavailable: It lacks migrations, or does not answer.
        """
        if self._is_complete.is_set():
            return
        if missing := self._missing():
            raise StoreUnavailable(f"the database lacks the {_named(missing)}: {HELP}")
        self._is_complete.set()

    def _missing(self) -> list[str]:
        needed = available()
        if self._database.rows(_EXISTS, []) == [(False,)]:
            return needed
        found = {name for (name,) in self._database.rows(_APPLIED, [needed])}
        return [name for name in needed if name not in found]


def _named(missing: list[str]) -> str:
    first = f"migration {missing[0]}"
    return first if len(missing) == 1 else f"{first} and {len(missing) - 1} more"
