"""Statistics of a real container with limits; skipped if no Docker engine answers."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pytest

from tests.support.child import ROOT

TIMEOUT_S = 60
MIB = 2**20
MEASURE = Path(__file__).with_name("measure_machine.py")
# The image is empty: the container runs this machine's own programs.
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")


def docker(*arguments, **options):
    return subprocess.run(
        ["docker", *arguments], capture_output=True, timeout=TIMEOUT_S, check=False, **options
    )  # fmt: skip


@pytest.fixture(scope="module")
def image():
    """Yield an image without content."""
    if shutil.which("docker") is None:
        pytest.skip("no docker command")
    if (answer := docker("version", "--format", "{{.Server.Version}}")).returncode:
        pytest.skip(f"no Docker engine answers: {answer.stderr.decode().strip()}")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o777
        tar.addfile(folder)
    name = f"citadel-test-empty:{uuid.uuid4().hex}"
    assert docker("import", "-", name, input=archive.getvalue()).returncode == 0
    yield name
    docker("image", "rm", "--force", name)


def measured(image, *options):
    """Return the metrics measured in a container."""
    paths = {*filter(os.path.exists, SYSTEM), sys.prefix, sys.base_prefix, str(ROOT)}
    mounts = [part for path in sorted(paths) for part in ("--volume", f"{path}:{path}:ro")]
    python = [sys.executable, str(MEASURE)]
    ended = docker("run", "--rm", "--network=none", *options, *mounts, f"--workdir={ROOT}", image, *python)
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


@pytest.mark.parametrize("namespace", ["private", "host"])
def test_the_limits_of_a_container_are_reported(image, namespace):
    metrics = measured(image, "--cpus=0.5", "--memory=200m", f"--cgroupns={namespace}")
    assert metrics["cgroup"]["cpu_limit_cores"] == 0.5
    assert metrics["cgroup"]["memory_limit_bytes"] == 200 * MIB
    assert metrics["cgroup"]["throttling"]["periods"] > 0
    assert 0 < metrics["cgroup"]["memory_used_bytes"] <= metrics["cgroup"]["memory_current_bytes"] <= 200 * MIB
    assert metrics["cpu_metrics"]["core_count"] == 0.5
    assert metrics["cpu_metrics"]["host_core_count"] >= 1
    memory = metrics["memory_metrics"]
    assert memory["total_gb"] == 200 * MIB / 2**30
    assert 0 < memory["available_gb"] < memory["total_gb"] < memory["host_total_gb"]
    assert 0 < memory["usage_percent"] < 100


def test_a_container_without_limits_reports_the_host(image):
    metrics = measured(image)
    assert (metrics["cgroup"]["cpu_limit_cores"], metrics["cgroup"]["memory_limit_bytes"]) == (None, None)
    assert metrics["memory_metrics"]["total_gb"] == metrics["memory_metrics"]["host_total_gb"]
