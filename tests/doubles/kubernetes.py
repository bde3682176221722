"""Double of a Kubernetes API server, as far as `lookup` in a Helm template asks: discovery, and Secrets."""

from typing import Any

from tests.doubles.base.answers import Answer, json_answer
from tests.doubles.base.application import Double
from tests.doubles.base.caller import Caller
from tests.doubles.base.recording import Recording

SECRETS = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get", "list"]}


class KubernetesDouble(Double):
    """Serves the Secrets that it is given, by namespace and name."""

    def __init__(self) -> None:
        super().__init__(Recording())
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}

    async def answer(self, caller: Caller) -> Answer:
        """Return a list of what there is, or a Secret."""
        match caller.path.strip("/").split("/"):
            case ["version"]:
                return json_answer({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
            case ["api"]:
                return json_answer({"kind": "APIVersions", "versions": ["v1"]})
            case ["apis"]:
                return json_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
            case ["api", "v1"]:
                return json_answer({"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRETS]})
            case ["api", "v1", "namespaces", namespace, "secrets", name] if (namespace, name) in self.secrets:
                return json_answer(self.secrets[namespace, name])
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        return json_answer(status | {"message": f"{caller.path} not found"}, 404)
