"""`python -m citadel_orchestration.api`: the HTTP API."""

from citadel_common.settings import load
from citadel_orchestration.api.server import serve
from citadel_orchestration.settings import ApiSettings

if __name__ == "__main__":
    serve(load(ApiSettings))
