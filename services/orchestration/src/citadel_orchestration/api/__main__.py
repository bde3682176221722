"""`python -m citadel_orchestration.api`: the HTTP API."""

from citadel_common.settings.common import load
from citadel_common.startup import gc_paused_imports
from citadel_orchestration.settings import ApiSettings


def main() -> None:
    """Reads the settings first: a wrong one is told before the server is loaded."""
    settings = load(ApiSettings)
    with gc_paused_imports():
        from citadel_orchestration.api.http.server import serve

    serve(settings)


if __name__ == "__main__":
    main()
