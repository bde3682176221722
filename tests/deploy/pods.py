"""Pods of the chart as containers of this machine's engine: the same images, commands, users, files and variables."""

import base64
from pathlib import Path
from typing import Any

from tests.deploy.engine import docker
from tests.unit.k8s.rendering import Rendered

Pod = dict[str, Any]


class Pods:
    """Containers of a rendering, in a network of their own, under the names of its Services."""

    def __init__(self, rendered: Rendered, project: str, directory: Path) -> None:
        self._pods = dict(rendered.pods())
        self._directory = directory
        self._project = project
        (secret,) = rendered.of("Secret").values()
        self.secret = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        docker("network", "create", "--internal", project)

    def name(self, component: str) -> str:
        """Return the container of a component."""
        return f"{self._project}-{component}"

    def start(self, component: str, *, user: str | None = None) -> None:
        """Run the container of a component as its pod does; `user` where this machine's image has another one."""
        spec = self._pods[component]["spec"]
        (container,) = spec["containers"]
        uid = spec["securityContext"]["runAsUser"]
        user = user or f"{uid}:{spec['securityContext']['runAsGroup']}"
        command = [*container.get("command", ()), *container.get("args", ())]
        entrypoint = ("--entrypoint", command.pop(0)) if "command" in container else ()
        docker(
            *("run", "--detach", "--name", self.name(component), "--user", user, *entrypoint),
            *("--network", self._project, "--network-alias", f"citadel-{component}"),
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *self._mounts(component, spec, user),
            *self._environment(container),
            *(container["image"], *command),
        )

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

    def succeeds(self, component: str, *command: str) -> bool:
        """Return True if a command in a container ends with status 0."""
        try:
            docker("exec", self.name(component), *command)
        except AssertionError:
            return False
        return True

    def remove(self) -> None:
        """Leaves nothing."""
        docker("rm", "--force", "--volumes", *map(self.name, self._pods))
        docker("network", "rm", self._project)

    def _mounts(self, component: str, spec: Pod, user: str) -> list[str]:
        (container,) = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        uid, _, gid = user.partition(":")
        options = []
        for mount in container["volumeMounts"]:
            secret = volumes.get(mount["name"], {}).get("secret")
            if secret is None:
                options.append(f"--tmpfs={mount['mountPath']}:exec,uid={uid},gid={gid},mode=0700")
            else:
                options.append(f"--volume={self._files(component, secret)}:{mount['mountPath']}:ro")
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
        return [f"--env={one['name']}={one['value']}" for one in container.get("env", ()) if "value" in one]

    @staticmethod
    def _get(container: dict[str, Any], probe: dict[str, Any]) -> list[str]:
        port = next(one["containerPort"] for one in container["ports"] if one["name"] == probe["httpGet"]["port"])
        url = f"http://127.0.0.1:{port}{probe['httpGet']['path']}"
        return ["python", "-c", f"import urllib.request as r; r.urlopen({url!r}, timeout=10)"]
