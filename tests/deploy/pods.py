"""Pods of the chart as containers of this machine's engine: the same images, commands, users, files and variables."""

import base64
from pathlib import Path
from typing import Any

from tests.deploy.engine import docker
from tests.unit.k8s.rendering import Rendered

Pod = dict[str, Any]


class Pods:
    """Containers of a rendering, in a network of their own, under the names of its Services.

    `claims` are the directories of volumes by the names of their claims.
    """

    def __init__(self, rendered: Rendered, project: str, directory: Path, claims: dict[str, Path]) -> None:
        self._pods = dict(rendered.pods())
        self._directory = directory
        self._claims = claims
        self._project = project
        (secret,) = rendered.of("Secret").values()
        self.secret = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        docker("network", "create", "--internal", project)

    def name(self, component: str) -> str:
        """Return the container of a component."""
        return f"{self._project}-{component}"

    def start(self, component: str, *, user: str | None = None) -> None:
        """Run the containers of a component as its pod does; `user` where this machine's image has another one."""
        spec = self._pods[component]["spec"]
        uid = spec["securityContext"]["runAsUser"]
        user = user or f"{uid}:{spec['securityContext']['runAsGroup']}"
        for container in spec.get("initContainers", ()):
            data = f"--volume={self._data(component)}:/data"
            docker("run", "--rm", "--user=0", data, "--entrypoint=chown", container["image"], user, "/data")  # fsGroup
            docker("run", "--rm", *self._arguments(component, container, user))
        (container,) = spec["containers"]
        docker("run", "--detach", "--name", self.name(component), *self._arguments(component, container, user))

    def _arguments(self, component: str, container: dict[str, Any], user: str) -> list[str]:
        command = [*container.get("command", ()), *container.get("args", ())]
        entrypoint = ("--entrypoint", command.pop(0)) if "command" in container else ()
        return [
            *("--user", user, *entrypoint),
            *("--network", self._project, "--network-alias", f"citadel-{component}"),
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *self._mounts(component, container, user),
            *self._environment(container),
            *(container["image"], *command),
        ]

    def run_to_its_end(self, component: str) -> str:
        """Run a job; return its log once it has succeeded."""
        self.start(component)
        status = docker("wait", self.name(component)).strip()
        log = docker("logs", self.name(component))
        assert status == "0", log
        return log

    def probe(self, component: str, kind: str) -> bool:
        """Return True if a probe of the pod succeeds now: commands by exec, HTTP by a request from inside."""
        (container,) = self._pods[component]["spec"]["containers"]
        probe = container[f"{kind}Probe"]
        return self.succeeds(component, *(probe["exec"]["command"] if "exec" in probe else self._get(container, probe)))

    def exec(self, component: str, *command: str) -> str:
        """Run a command in a container; return its output."""
        return docker("exec", self.name(component), *command)

    def succeeds(self, component: str, *command: str) -> bool:
        """Return True if a command in a container ends with status 0."""
        try:
            self.exec(component, *command)
        except AssertionError:
            return False
        return True

    def remove(self) -> None:
        """Leaves nothing."""
        docker("rm", "--force", "--volumes", *map(self.name, self._pods))
        docker("volume", "rm", "--force", *map(self._data, self._pods))
        docker("network", "rm", self._project)

    def _data(self, component: str) -> str:
        return f"{self.name(component)}-data"

    def _mounts(self, component: str, container: dict[str, Any], user: str) -> list[str]:
        spec = self._pods[component]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        uid, _, gid = user.partition(":")
        options = []
        for mount in container["volumeMounts"]:
            volume, path = volumes.get(mount["name"], {}), mount["mountPath"]
            if "secret" in volume:
                options.append(f"--volume={self._files(component, volume['secret'])}:{path}:ro")
            elif "persistentVolumeClaim" in volume:
                options.append(f"--volume={self._claims[volume['persistentVolumeClaim']['claimName']]}:{path}:ro")
            elif not volume and "initContainers" in spec:
                options.append(f"--volume={self._data(component)}:{path}")
            else:
                options.append(f"--tmpfs={path}:exec,uid={uid},gid={gid},mode=0700")
        return options

    def _files(self, component: str, volume: dict[str, Any]) -> Path:
        directory = self._directory / component
        directory.mkdir()
        directory.chmod(0o755)
        for item in volume["items"]:
            if item["key"] in self.secret:
                (directory / item["path"]).write_text(self.secret[item["key"]])
        return directory

    def _environment(self, container: dict[str, Any]) -> list[str]:
        values = {one["name"]: self._value(one) for one in container.get("env", ())}
        return [f"--env={name}={value}" for name, value in values.items() if value is not None]

    def _value(self, variable: dict[str, Any]) -> str | None:
        source = variable.get("valueFrom", {}).get("secretKeyRef")
        return self.secret[source["key"]] if source else variable.get("value")

    @staticmethod
    def _get(container: dict[str, Any], probe: dict[str, Any]) -> list[str]:
        port = next(one["containerPort"] for one in container["ports"] if one["name"] == probe["httpGet"]["port"])
        url = f"http://127.0.0.1:{port}{probe['httpGet']['path']}"
        return ["python", "-c", f"import urllib.request as r; r.urlopen({url!r}, timeout=10)"]
