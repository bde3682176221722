"""The images: what is in them, how their commands run, when they are healthy, what a change rebuilds."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.engine import BUILD_SECONDS, ROOT, docker, inspect, program, require_engine, run
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(BUILD_SECONDS)]
TAG = "images-test"
SERVICES = ("embeddings", "orchestration", "monitoring", "maintenance")
COMMANDS = {
    "citadel_embeddings": "embeddings",
    "citadel_orchestration": "orchestration",
    "citadel_orchestration.api": "orchestration",
    "citadel_monitoring": "monitoring",
    "citadel_monitoring.exporter": "monitoring",
    "citadel_maintenance": "maintenance",
    "citadel_maintenance.beat": "maintenance",
}
KEYS = json.dumps([{"name": "test", "hash": hashlib.sha256(b"key").hexdigest(), "scopes": ["read"]}])
MARKER = "geheim-7f3a"
LOCKED_DOWN = ("--read-only", "--tmpfs=/tmp", "--tmpfs=/run/citadel", "--cap-drop=ALL", "--network=none")
PATIENCE = 120.0


def image(service: str) -> str:
    return f"citadel-{service}:{TAG}"


@pytest.fixture(scope="module")
def printed() -> Iterator[str]:
    """Build the images; return the output of `make images`."""
    require_engine()
    yield run("scripts/images", timeout=BUILD_SECONDS, env={"CITADEL_TAG": TAG})
    docker("rmi", "--force", *map(image, SERVICES))


@contextmanager
def container(service: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a container; give its id."""
    found = docker("run", "--detach", *options, image(service), *command).strip()
    try:
        yield found
    finally:
        docker("rm", "--force", found)


def layers(name: str) -> list[str]:
    found: list[str] = inspect(name)[0]["RootFS"]["Layers"]
    return found


def test_the_size_that_each_image_adds_is_printed_and_small(printed):
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines] == [image(service) for service in SERVICES]
    assert all(0 < float(line[2]) <= int(line[6]) for line in lines)


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_its_service_and_no_more(printed, service):
    command = ("python", "-c", program("describe_container"))
    found = json.loads(docker("run", "--rm", *LOCKED_DOWN, image(service), *command))
    assert found == {
        "ids": [10001, 10001],
        "capabilities": 0,
        "writable": ["/tmp", "/run/citadel"],
        "tools": [],
        "caches": [],
        "packages": ["citadel_common", "citadel_contracts", f"citadel_{service}"],
        "pip": [],
    }


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_says_what_it_is(printed, service):
    config = inspect(image(service))[0]["Config"]
    assert (config["User"], config["Entrypoint"]) == ("10001:10001", ["/usr/bin/tini", "--"])
    assert config["Cmd"] == ["python", "-m", f"citadel_{service}"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"citadel-{service}"
    assert labels["org.opencontainers.image.revision"] != "unknown"


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_is_healthy_without_its_stores_until_it_is_frozen(printed, module):
    options = (
        *("--health-interval=1s", "--health-retries=1", "--health-timeout=60s", "--health-start-period=60s"),
        *("--env=CITADEL_WORKER__HEARTBEAT_INTERVAL=0.5", "--env=CITADEL_WORKER__DEAD_AFTER=5"),
        f"--env=CITADEL_API__KEYS={KEYS}",
    )
    with container(COMMANDS[module], *LOCKED_DOWN, *options, command=("python", "-m", module)) as running:

        def is_(state: str) -> bool:
            found = inspect(running)[0]["State"]
            assert found["Running"], docker("logs", running)
            return bool(found["Health"]["Status"] == state)

        def signal_all(name: str) -> None:
            docker("exec", running, "python", "-c", program("signal_others"), name)

        eventually(lambda: is_("healthy"), timeout=PATIENCE)
        signal_all("SIGSTOP")
        eventually(lambda: is_("unhealthy"), timeout=PATIENCE)
        signal_all("SIGCONT")
        eventually(lambda: is_("healthy"), timeout=PATIENCE)


def test_a_stop_is_polite(printed):
    options = (*LOCKED_DOWN, f"--env=CITADEL_API__KEYS={KEYS}")
    with container("orchestration", *options, command=("python", "-m", "citadel_orchestration.api")) as running:
        probe = ("exec", running, "python", "-m", "citadel_common.probe")
        eventually(
            lambda: subprocess.run(["docker", *probe], capture_output=True, check=False).returncode == 0,
            timeout=PATIENCE,
        )
        docker("stop", "--time", "60", running)
        assert inspect(running)[0]["State"]["ExitCode"] == 0


def context(place: Path, *commented: str) -> Path:
    """Copy the files that images are built from; a comment in the named ones makes their steps run anew."""
    for part in ("Dockerfile", ".dockerignore", "docker", "requirements", "libs", "services"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copy(ROOT / part, place / part)
    for name in commented:
        (place / name).write_text((place / name).read_text() + "\n# another\n")
    return place


def build(service: str, tag: str, place: Path, *options: str) -> str:
    name = f"citadel-{service}:{tag}"
    arguments = (f"--build-arg=SERVICE={service}", f"--build-arg=PYTHON_IMAGE={_base()}", f"--tag={name}", *options)
    docker("build", "--quiet", *arguments, str(place), timeout=BUILD_SECONDS)
    return name


def test_no_secret_of_the_build_is_left(printed, tmp_path):
    """Installed anew, with a pip.conf that holds a secret: the same layers, and the secret in none of them."""
    given = os.environ.get("PIP_CONFIG_FILE")
    conf = tmp_path / "pip.conf"
    conf.write_text((Path(given).read_text() if given else "[global]\n") + f"\n# {MARKER}\n")
    (tmp_path / "context").mkdir()
    place = context(tmp_path / "context", "docker/trim", "docker/bytecode.py", "libs/common/pyproject.toml")
    again = build("maintenance", "images-test-again", place, f"--secret=id=pip_conf,src={conf}")
    try:
        saved = tmp_path / "image.tar"
        docker("save", "--output", str(saved), again, timeout=BUILD_SECONDS)
        assert not _contains(saved, MARKER.encode())
        assert _contains(saved, b"citadel_maintenance")
        assert MARKER not in docker("history", "--no-trunc", again) + json.dumps(inspect(again))
        assert _differing(image("maintenance"), again) == []
    finally:
        docker("rmi", "--force", again)


def _contains(file: Path, wanted: bytes) -> bool:
    tail = b""
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            if wanted in tail + block:
                return True
            tail = block[-len(wanted) :]
    return False


@pytest.mark.parametrize("service", SERVICES)
def test_no_index_and_no_setting_of_pip_is_in_an_image(printed, service):
    [found] = inspect(image(service))
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image(service))
    ours = history[: history.index("COPY /skeleton")]
    assert "://" not in ours
    assert "index-url" not in ours
    below = set(inspect(_base())[0]["Config"]["Env"] or [])
    added = [line for line in found["Config"]["Env"] if line not in below]
    assert not [line for line in added if "://" in line or line.startswith("PIP_")]
    assert not [line for line in added if any(word in line for word in ("PASSWORD", "SECRET", "KEY", "TOKEN"))]


def _base() -> str:
    [line] = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ARG PYTHON_IMAGE=")]
    return os.environ.get("PYTHON_IMAGE", line.partition("=")[2])


def test_a_change_of_one_service_rebuilds_its_own_layer_alone(printed, tmp_path):
    changed = context(tmp_path) / "services" / "embeddings" / "src" / "citadel_embeddings" / "worker.py"
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")
    built = {}
    try:
        for service in SERVICES:
            built[service] = build(service, "images-test-changed", tmp_path)
        differing = {service: _differing(image(service), built[service]) for service in SERVICES}
    finally:
        docker("rmi", "--force", *built.values())
    assert differing == {
        "embeddings": ["COPY /out / # buildkit"],
        "orchestration": [],
        "monitoring": [],
        "maintenance": [],
    }


def _differing(one: str, other: str) -> list[str]:
    """Return the instructions of the layers that two images do not share."""
    commands = docker("history", "--no-trunc", "--format", "{{.Size}} {{.CreatedBy}}", one).splitlines()[::-1]
    made = [command.partition(" ")[2] for command in commands if not command.startswith("0B ")]
    before, after = layers(one), layers(other)
    assert len(before) == len(after)
    places = [place for place, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    return [made[place] for place in places]
