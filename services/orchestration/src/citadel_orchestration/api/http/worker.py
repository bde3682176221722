"""The gunicorn worker: uvicorn on uvloop and httptools, without access log, that ends when its parent has."""

import logging
import os
import signal
import socket
import sys
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # gunicorn publishes no types
from uvicorn import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from citadel_orchestration.api.services import LEAVE


class PoliteServer(Server):
    """Tells the application of the stop before it waits for the requests in flight, so that streams end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's hook."""
        leave = self.lifespan.state.get(LEAVE)
        if leave is not None:
            leave()
        await super().shutdown(sockets)


class ApiWorker(UvicornWorker):  # type: ignore[misc]
    """One server process."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_notify": 1,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        errors = logging.getLogger("uvicorn.error")
        errors.setLevel(logging.WARNING)
        errors.propagate = True
        self._serves = False

    async def _serve(self) -> None:
        """As in the base class, with a server of our own."""
        self.config.app = self.wsgi
        server = PoliteServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def callback_notify(self) -> None:
        """Each second: tells the parent that this process lives; without a parent, stops politely."""
        await super().callback_notify()
        self._say_once_that_it_serves()
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)

    def _say_once_that_it_serves(self) -> None:
        """From the event loop, which turns only when the application has started."""
        if not self._serves:
            self._serves = True
            self.app.supervisor.ready("serving")
