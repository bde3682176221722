"""Settings of PostgreSQL."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from citadel_common.settings.common import CommonSettings, Fragment


def _postgres_url(dsn: SecretStr) -> SecretStr:
    if not dsn.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("must start with postgresql://")
    return dsn


PostgresDsn = Annotated[SecretStr, AfterValidator(_postgres_url)]
DEFAULT_DSN = SecretStr("postgresql://citadel@127.0.0.1:5432/citadel")


class PostgresSettings(Fragment):
    """Use of PostgreSQL."""

    pool_size: int = Field(10, ge=2, description="Connections per process")
    timeout: float = Field(10.0, gt=0, description="Seconds a statement may take, or a connection be waited for")
    connect_timeout: float = Field(3.0, ge=1, description="Seconds a connection may take to open")


class StoredSettings(CommonSettings):
    """Settings of every process that uses PostgreSQL."""

    passwords: ClassVar[Mapping[str, str]] = {**CommonSettings.passwords, "postgres_password": "postgres_dsn"}

    postgres_dsn: PostgresDsn = Field(DEFAULT_DSN, description="Record of runs (PostgreSQL ≥ 14)")
    postgres_password: SecretStr | None = Field(None, description="Its password, where the DSN has none")
    postgres: PostgresSettings = PostgresSettings()
