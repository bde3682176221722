"""Settings of the exporter."""

from pydantic import Field

from citadel_common.settings.common import Fragment
from citadel_common.settings.postgres import StoredSettings


class ExporterFragment(Fragment):
    """Address and timeout of the exporter."""

    host: str = Field("127.0.0.1", min_length=1, description="Address the exporter listens on")
    port: int = Field(9808, ge=0, le=65535, description="Port the exporter listens on; 0: any free port")
    timeout: float = Field(2.0, gt=0, description="Longest seconds a scrape waits for a store")


class ExporterSettings(StoredSettings):
    """All settings of the exporter."""

    exporter: ExporterFragment = ExporterFragment()

    @property
    def postgres_connections(self) -> int:
        """Return the most connections to PostgreSQL: the exporter has no pool."""
        return 1
