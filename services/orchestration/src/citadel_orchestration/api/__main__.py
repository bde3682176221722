"""`python -m citadel_orchestration.api`: the HTTP API."""

from citadel_common.settings.common import load
from citadel_common.startup import gc_paused_imports
from citadel_orchestration.settings import ApiSettings


def main() -> None:
    """Serve until stopped. Reads the settings before it imports the server, so that a wrong one is reported at once."""
    settings = load(ApiSettings)
    with gc_paused_imports():
        from citadel_orchestration.api.app import create_app
        from citadel_orchestration.api.http.server import serve

    serve(settings, create_app)


if __name__ == "__main__":
    main()
