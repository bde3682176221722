"""Advice on the record's tables, from PostgreSQL's own statistics; nothing is changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from citadel_common.stores.postgres import Database
from citadel_contracts.maintenance import TableStats

MANY_ROWS = 1000
"""Rows from which a table is worth a word."""
DEAD_SHARE = 0.2
"""Share of dead rows from which a vacuum is advised: PostgreSQL itself begins at a fifth of the live ones."""
BLOAT_SHARE = 0.5
BLOAT_BYTES = 64 * 2**20
"""Unused space, in share and bytes, from which a table counts as bloated."""
AGED = 0.75
"""Share of the age at which PostgreSQL vacuums by force from which that is told beforehand."""
_TABLES = """
SELECT stats.relname, stats.n_live_tup, stats.n_dead_tup,
    pg_total_relation_size(stats.relid), pg_relation_size(stats.relid),
    greatest(stats.last_vacuum, stats.last_autovacuum), greatest(stats.last_analyze, stats.last_autoanalyze),
    coalesce((SELECT sum(avg_width * (1 - null_frac)) FROM pg_stats
        WHERE pg_stats.schemaname = stats.schemaname AND pg_stats.tablename = stats.relname), 0) + 28,
    age(classes.relfrozenxid)::float / current_setting('autovacuum_freeze_max_age')::float,
    current_setting('autovacuum')::boolean
        AND NOT coalesce('autovacuum_enabled=false' = ANY(classes.reloptions), false)
FROM pg_stat_user_tables AS stats JOIN pg_class AS classes ON classes.oid = stats.relid
WHERE stats.schemaname = ANY(current_schemas(false))
ORDER BY stats.relname
"""
"""28 bytes: a row's header and its pointer."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        name: Its name.
        live: Rows, as PostgreSQL counts them.
        dead: Rows that a vacuum could free.
        total_bytes: With indexes and long values.
        heap_bytes: Of the rows alone.
        vacuumed_at: When last, by hand or by itself.
        analyzed_at: When last.
        row_bytes: Mean width of a row, header included.
        age: Of its oldest transaction, as a share of the one at which PostgreSQL vacuums by force.
        autovacuum: Whether PostgreSQL vacuums it by itself.
    """

    name: str
    live: int
    dead: int
    total_bytes: int
    heap_bytes: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    row_bytes: float
    age: float
    autovacuum: bool

    @property
    def unused_bytes(self) -> int:
        """Space of the heap that live rows do not need (estimated); 0 where rows were never analyzed."""
        if self.analyzed_at is None:
            return 0
        return max(0, round(self.heap_bytes - self.live * self.row_bytes))

    def figures(self) -> TableStats:
        """As reported."""
        return {
            "table": self.name,
            "live_rows": self.live,
            "dead_rows": self.dead,
            "total_bytes": self.total_bytes,
            "unused_bytes": self.unused_bytes,
            "last_vacuum": _time(self.vacuumed_at),
            "last_analyze": _time(self.analyzed_at),
        }


def read_tables(database: Database) -> list[Table]:
    """The tables of the record.

    Raises:
        StoreUnavailable: PostgreSQL does not answer.
    """
    with database.cursor() as cursor:
        cursor.execute(_TABLES)
        return [Table(**dict(zip(Table.__dataclass_fields__, row, strict=True))) for row in cursor.fetchall()]


def advice_on(table: Table) -> Iterator[str]:
    """Sentences on one table, none if it is well."""
    if not table.autovacuum:
        yield f"{table.name}: autovacuum is off; switch it on, or the table only grows"
    if table.age >= AGED:
        yield (
            f"{table.name}: its oldest transaction is at {table.age:.0%} of autovacuum_freeze_max_age; "
            f"run VACUUM (FREEZE) {table.name} in a quiet hour, before PostgreSQL does it by force"
        )
    rows = table.live + table.dead
    if rows >= MANY_ROWS and table.dead >= DEAD_SHARE * rows:
        yield (
            f"{table.name}: {table.dead} of {rows} rows are dead ({table.dead / rows:.0%}), last vacuumed "
            f"{_when(table.vacuumed_at)}; run VACUUM (ANALYZE) {table.name}"
        )
    elif rows >= MANY_ROWS and table.vacuumed_at is None:
        yield f"{table.name}: {rows} rows and never vacuumed; run VACUUM (ANALYZE) {table.name}"
    if rows >= MANY_ROWS and table.analyzed_at is None:
        yield f"{table.name}: {rows} rows and never analyzed, so queries are planned blindly; run ANALYZE {table.name}"
    if table.unused_bytes >= max(BLOAT_BYTES, BLOAT_SHARE * table.heap_bytes):
        yield (
            f"{table.name}: about {_mib(table.unused_bytes)} of {_mib(table.heap_bytes)} are unused; they are used "
            f"again, and VACUUM FULL {table.name}, which locks it, gives them back to the disk"
        )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else moment.isoformat(timespec="seconds")


def _mib(size: Any) -> str:
    return f"{size / 2**20:.0f} MiB"
