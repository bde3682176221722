"""`python -m citadel_orchestration.migrate` migrates the database; worker and API do so at their start if they may."""

import argparse
import sys

import psycopg

from citadel_common import logs
from citadel_common.errors import StoreUnavailable
from citadel_common.redaction import secrets_of
from citadel_common.settings.common import WrongSetting, load, refuse
from citadel_orchestration.db.migrate import migrate_as_owner
from citadel_orchestration.settings import EngineSettings

PATIENCE = 30.0
"""Seconds to wait for PostgreSQL."""


def main() -> None:
    """Apply the missing migrations.

    Exits with 1 if PostgreSQL does not answer, or refuses, and with 78 if a setting is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m citadel_orchestration.migrate", description=__doc__)
    parser.add_argument("--grant-to", metavar="ROLE", help="give this role what a running Citadel needs, and no more")
    arguments = parser.parse_args()
    settings = load(EngineSettings)
    logs.configure(settings.log, service="migrate", secrets=secrets_of(settings))
    try:
        migrate_as_owner(settings, patience=PATIENCE, grant_to=arguments.grant_to)
    except WrongSetting as error:
        refuse(str(error))
    except StoreUnavailable as error:
        sys.exit(f"citadel: {error.message}")
    except psycopg.Error as error:
        sys.exit(f"citadel: PostgreSQL refuses: {error.diag.message_primary or type(error).__name__}")


if __name__ == "__main__":
    main()
