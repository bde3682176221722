"""Gunicorn worker class: uvicorn on uvloop, with bounds on httptools, which stops when its parent process has died."""

import logging
import os
import signal
import socket
import sys
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # gunicorn publishes no types
from uvicorn import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from citadel_orchestration.api.http.protocol import BoundedProtocol

BEFORE_SHUTDOWN = "citadel.before_shutdown"
"""Key of the lifespan state under which the application puts the callable that ends its streams."""


class DrainingServer(Server):
    """Uvicorn's server, which lets the application end its streams before it waits for requests in flight."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down (uvicorn's hook)."""
        before_shutdown = self.lifespan.state.get(BEFORE_SHUTDOWN)
        if before_shutdown is not None:
            before_shutdown()
        await super().shutdown(sockets)


class ApiWorker(UvicornWorker):  # type: ignore[misc]
    """One server process of the API."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": BoundedProtocol,
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
        self._reported_ready = False

    async def _serve(self) -> None:
        """Serve as the base class does, with `DrainingServer`."""
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def callback_notify(self) -> None:
        """Report to the parent each second that this process lives; stop gracefully when the parent has died."""
        await super().callback_notify()
        # The event loop calls this only once the application has started.
        if not self._reported_ready:
            self._reported_ready = True
            self.app.supervisor.ready("serving")
        if os.getppid() != self.ppid:
            os.kill(os.getpid(), signal.SIGTERM)
