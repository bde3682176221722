"""Builds the service: stores, record and tasks."""

from citadel_common.stores.postgres import Database
from citadel_common.tasks.runtime import TaskRuntime
from citadel_maintenance.settings import MaintenanceSettings
from citadel_maintenance.stores import Stores
from citadel_maintenance.tasks import MaintenanceTasks
from citadel_maintenance.upkeep import Upkeep


class MaintenanceService:
    """All parts of the maintenance worker, and their end."""

    def __init__(self, settings: MaintenanceSettings) -> None:
        self._settings = settings
        self._stores = Stores.connect(settings)
        self._database = Database(settings.postgres_dsn, settings.postgres, name="maintenance")

    def start(self, runtime: TaskRuntime) -> None:
        """Opens the record and registers the tasks."""
        self._database.open()
        upkeep = Upkeep(runtime, self._stores.results, self._settings.maintenance)
        MaintenanceTasks(upkeep, self._stores, self._database, self._settings).register(runtime.app)

    def interrupt(self) -> None:
        """Gives what still runs after the grace no further connection: its last batch is undone, or was the last."""
        self.close()

    def close(self) -> None:
        """Closes everything."""
        self._database.close()
        self._stores.close()
