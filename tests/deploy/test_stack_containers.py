"""Each container from inside: who it is, what it may do, what it may take, and what it has no business to know."""

import re

import pytest

from compose.cpu_plan.budget import CONTAINERS
from tests.deploy.engine import CommandFailed, docker, inspect
from tests.deploy.stack import DOUBLE, OWN, STORES

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

GROUPS = {container.service: container.group for container in CONTAINERS}
# Tempo's own image holds no program but Tempo.
EVERYBODY = (*STORES, "ollama", "qdrant", DOUBLE, *OWN, "prometheus")
AS_ROOT = {"ollama", "qdrant"}
"""Users of their images, whose volumes belong to them; without a capability they are root in name only."""
VALUES = ("redis_password", "redis_cache_password", "postgres_password", "qdrant_api_key", "api_key", "metrics_key")


@pytest.fixture(params=EVERYBODY)
def container(request, stack):
    """Return a container of each service."""
    return stack.containers(request.param)[0]


def service_of(container) -> str:
    return container["Config"]["Labels"]["com.docker.compose.service"]


def test_no_container_runs_as_root_unless_its_volume_is_roots_and_citadels_have_a_fixed_user(stack, container):
    uid, gid = stack.exec(container, "sh", "-c", "id -u; id -g").split()
    assert (uid == "0") == (service_of(container) in AS_ROOT)
    if service_of(container) in OWN:
        assert (uid, gid) == ("10001", "10001")


def test_no_process_has_or_can_gain_a_capability(stack, container):
    status = stack.exec(container, "cat", "/proc/1/status")
    assert {value for _, value in re.findall(r"(Cap\w+):\s+([0-9a-f]+)", status)} == {"0" * 16}
    assert re.search(r"NoNewPrivs:\s+1", status)


def test_the_root_file_system_is_read_only(stack, container):
    with pytest.raises(CommandFailed, match="Read-only file system"):
        stack.exec(container, "sh", "-c", "echo x >/written")


def test_the_limits_of_a_container_are_those_of_the_plan(stack, container):
    service, plan = service_of(container), stack.plan()
    if service not in GROUPS:
        pytest.skip(f"{service} is a double and has no budget")
    wanted_cpus = float(plan[f"CITADEL_CPUS_{service.upper().replace('-', '_')}"])
    wanted_set = plan[f"CITADEL_CPUSET_{GROUPS[service].upper()}"]
    host = container["HostConfig"]
    assert host["NanoCpus"] == pytest.approx(wanted_cpus * 1e9)
    assert host["CpusetCpus"] == wanted_set
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert re.search(rf"Cpus_allowed_list:\s+{re.escape(wanted_set)}\n", stack.exec(container, "cat", "/proc/1/status"))
    assert quota(stack, container) == pytest.approx(wanted_cpus, abs=0.01)


def quota(stack, container) -> float:
    """Processors by the container's own control group, of whichever version."""
    both = "cd /sys/fs/cgroup; cat cpu.max 2>/dev/null || cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us"
    allowed, period = stack.exec(container, "sh", "-c", both).split()
    return int(allowed) / int(period)


def test_no_secret_is_in_the_engines_description_of_a_container(stack, container):
    output = str(inspect(container["Id"]))
    assert not [name for name in VALUES if stack.secret(name) in output]


@pytest.mark.parametrize("service", OWN)
def test_no_secret_is_in_an_image(stack, service):
    image = stack.containers(service)[0]["Image"]
    output = docker("history", "--no-trunc", image) + str(inspect(image))
    assert not [name for name in VALUES if stack.secret(name) in output]


@pytest.mark.parametrize("service", OWN)
def test_no_secret_is_logged(stack, service):
    output = stack.compose("logs", "--no-color", service)
    assert not [name for name in VALUES if stack.secret(name) in output]


def test_only_the_api_is_published_and_on_loopback_only(stack):
    for service in (*STORES, *OWN, "ollama", "qdrant"):
        for container in stack.containers(service):
            ports = [bind for binds in container["NetworkSettings"]["Ports"].values() for bind in binds or []]
            assert bool(ports) == (service == "api"), service
            assert {bind["HostIp"] for bind in ports} <= {"127.0.0.1"}


def test_the_concurrency_of_workers_follows_from_their_limit(stack):
    plan = stack.plan()
    for service in ("embeddings", "orchestration", "monitoring", "maintenance"):
        environment = stack.containers(service)[0]["Config"]["Env"]
        assert f"CITADEL_WORKER__CONCURRENCY={plan[f'CITADEL_TASKS_{service.upper()}']}" in environment


def test_stores_cannot_be_reached_from_other_networks(stack):
    """Ollama's network is not theirs."""
    probe = "exec 3<>/dev/tcp/redis/6379"
    stack.exec(stack.containers("prometheus")[0], "true")
    with pytest.raises(CommandFailed):
        stack.exec(stack.containers("ollama")[0], "bash", "-c", probe)
