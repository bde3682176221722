"""Advice on PostgreSQL's tables, from their statistics."""

from collections.abc import Iterator
from datetime import datetime

from citadel_maintenance.db import Table

MANY_ROWS = 1000
"""Rows from which a table gets advice on vacuum and analysis."""
DEAD_SHARE = 0.2
"""Share of dead rows from which a vacuum is advised; PostgreSQL's own begins at a fifth of the live ones."""
BLOAT_SHARE = 0.5
BLOAT_BYTES = 64 * 2**20
"""Unused space, as a share of the heap and in bytes, from which a table counts as bloated."""
AGED = 0.75
"""Share of the age of a forced vacuum from which a table gets a warning."""


def advice_on(table: Table) -> Iterator[str]:
    """Yield sentences on what one table needs; none if it needs nothing."""
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
            f"{table.name}: about {_mib(table.unused_bytes)} of {_mib(table.heap_bytes)} are unused; PostgreSQL reuses "
            f"them, and VACUUM FULL {table.name}, which locks the table, returns them to the disk"
        )


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else moment.isoformat(timespec="seconds")


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
