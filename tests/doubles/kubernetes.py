"""As much of a Kubernetes API server as `lookup` in a Helm template asks of one: discovery, and Secrets."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRETS = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get", "list"]}


class KubernetesDouble(ThreadingHTTPServer):
    """Serves the Secrets that it is given, by namespace and name."""

    daemon_threads = True

    def __init__(self, secrets: dict[tuple[str, str], dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets = secrets
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        match path.strip("/").split("/"):
            case ["version"]:
                return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
            case ["api"]:
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
            case ["api", "v1"]:
                return 200, {"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRETS]}
            case ["api", "v1", "namespaces", namespace, "secrets", name] if (namespace, name) in self.secrets:
                return 200, self.secrets[namespace, name]
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        return 404, status | {"message": f"{path} not found"}


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesDouble

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        status, body = self.server.answer(path)
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it)
        """Nothing."""
