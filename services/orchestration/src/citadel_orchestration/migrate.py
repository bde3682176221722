"""`python -m citadel_orchestration.migrate` migrates the database; worker and API do so at their start too."""

import sys

from citadel_common import logs
from citadel_common.errors import StoreUnavailable
from citadel_common.redaction import secrets_of
from citadel_common.settings.common import load
from citadel_orchestration.db.migrate import migrate_patiently
from citadel_orchestration.settings import EngineSettings

PATIENCE = 30.0
"""Seconds to wait for PostgreSQL."""


def main() -> None:
    """Apply the missing migrations; exit with 1 if PostgreSQL does not answer."""
    settings = load(EngineSettings)
    logs.configure(settings.log, service="migrate", secrets=secrets_of(settings))
    try:
        migrate_patiently(settings.postgres_dsn, patience=PATIENCE)
    except StoreUnavailable as error:
        sys.exit(f"citadel: {error.message}")


if __name__ == "__main__":
    main()
