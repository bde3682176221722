"""Settings of PostgreSQL."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from citadel_common.settings.common import CommonSettings, Fragment, OptionalText
from citadel_common.settings.postgres_dsn import parameters_of
from citadel_common.settings.sources import with_password


def _postgres_dsn(dsn: SecretStr) -> SecretStr:
    parameters_of(dsn.get_secret_value())
    return dsn


PostgresDsn = Annotated[SecretStr, AfterValidator(_postgres_dsn)]
OptionalDsn = Annotated[PostgresDsn | None, BeforeValidator(lambda value: value or None)]
"""A DSN; an empty variable is as good as none."""
DEFAULT_DSN = SecretStr("postgresql://citadel@127.0.0.1:5432/citadel")


class PostgresSettings(Fragment):
    """Use of PostgreSQL."""

    pool_size: int = Field(10, ge=2, description="Connections per process")
    timeout: float = Field(10.0, gt=0, description="Seconds a statement may take, or a connection be waited for")
    connect_timeout: float = Field(3.0, ge=1, description="Seconds a connection may take to open")
    search_path: OptionalText = Field(
        None, description="Schemas of Citadel's objects, as `citadel`; default: the role's, or the DSN's"
    )
    direct_dsn: OptionalDsn = Field(
        None, description="DSN past a connection pooler, on which the API listens for changed runs; default: it polls"
    )
    migration_dsn: OptionalDsn = Field(
        None, description="DSN of the tables' owner, who migrates; default: the role that runs also migrates"
    )
    migration_password: SecretStr | None = Field(None, description="Its password, where that DSN has none")
    grant_to: OptionalText = Field(
        None, description="Role that a migration gives what a running Citadel needs; default: none"
    )


class StorageSettings(Fragment):
    """Bytes that Citadel may keep in PostgreSQL."""

    max_bytes: Annotated[int | None, BeforeValidator(lambda value: None if value == "" else value)] = Field(
        None,
        ge=2**20,
        description="Bytes that runs and tasks may hold, then new ones are refused; half of the disk; empty: no limit",
    )
    purge_from: float = Field(
        0.9, gt=0, le=1, description="Share of that limit from which the oldest finished runs are removed before time"
    )
    purge_to: float = Field(0.8, gt=0, le=1, description="Share of that limit down to which they are removed")
    min_age: float = Field(3600.0, ge=0, description="Seconds a finished run is kept in any case")

    @model_validator(mode="after")
    def _is_ordered(self) -> "StorageSettings":
        if self.purge_to > self.purge_from:
            raise ValueError("purge_to must not be above purge_from")
        return self


class StoredSettings(CommonSettings):
    """Settings of every process that uses PostgreSQL."""

    passwords: ClassVar[Mapping[str, str]] = {**CommonSettings.passwords, "postgres_password": "postgres_dsn"}

    postgres_dsn: PostgresDsn = Field(DEFAULT_DSN, description="Record of runs (PostgreSQL ≥ 14)")
    postgres_password: SecretStr | None = Field(
        None, description="Its password, where the DSN has none; that of `CITADEL_POSTGRES__DIRECT_DSN` too"
    )
    postgres: PostgresSettings = PostgresSettings()
    storage: StorageSettings = StorageSettings()

    @property
    def postgres_connections(self) -> int:
        """Return the most connections to PostgreSQL that the process opens at a time: those of its pool."""
        return self.postgres.pool_size

    @property
    def direct_dsn(self) -> SecretStr | None:
        """Return the DSN past a connection pooler, with its password; None if there is none."""
        return _completed(self.postgres.direct_dsn, self.postgres_password)

    @property
    def migration_dsn(self) -> SecretStr | None:
        """Return the DSN of the tables' owner, with its password; None if the role that runs is the owner."""
        return _completed(self.postgres.migration_dsn, self.postgres.migration_password)


def _completed(dsn: SecretStr | None, password: SecretStr | None) -> SecretStr | None:
    if dsn is None or password is None:
        return dsn
    return SecretStr(with_password(dsn.get_secret_value(), password.get_secret_value()))
