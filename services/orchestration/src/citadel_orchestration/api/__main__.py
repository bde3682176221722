"""`python -m citadel_orchestration.api`: the HTTP API."""

from citadel_common.loading import loading
from citadel_common.settings import load
from citadel_orchestration.settings import ApiSettings


def main() -> None:
    """Reads the settings first: a wrong one is told before the server is loaded."""
    settings = load(ApiSettings)
    with loading():
        from citadel_orchestration.api.http.server import serve

    serve(settings)


if __name__ == "__main__":
    main()
