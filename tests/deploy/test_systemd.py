"""systemd/ on a host: installed by its command, ready, at work, killed, stuck, stopped, upgraded, and removed again.

The tests share the host and follow each other as its life does; the last one leaves it as it was.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.engine import require_engine
from tests.deploy.systemd_host import LONG, PASSWORD, SERVICES, WORKERS, Host, booted_host, drop_in, from_the_guide
from tests.support.polling import eventually
from tests.support.private_ca import PrivateAuthority
from tests.unit.deploy.unit_files import drop_ins_of_the_guide

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
EMBEDDINGS = "citadel-worker@embeddings.service"
MOST_EXPOSED = 2.0
ENV_FILE = "/etc/citadel/citadel.env"
CLI = "/opt/citadel/current/bin/citadel"
KEY = {"name": "test", "hash": hashlib.sha256(b"key").hexdigest(), "scopes": ["read"]}
EVERYWHERE = (
    *("SSL_CERT_FILE=/etc/citadel/private-ca.pem", "PGSSLROOTCERT=/etc/citadel/private-ca.pem"),
    *("HTTPS_PROXY=http://proxy.example:3128", "NO_PROXY=.internal.example,10.0.0.0/8", "CITADEL_API__HOST=::"),
)
OF_EMBEDDINGS = (
    "CITADEL_WORKER__CONCURRENCY=64",
    "OTEL_RESOURCE_ATTRIBUTES=host.name=gpu1,deployment.environment.name=production",
)
"""Variables of the guide's drop-ins."""


@pytest.fixture(scope="module")
def bare() -> Iterator[Host]:
    """Boot a host without Citadel."""
    require_engine()
    with booted_host() as found:
        yield found


@pytest.fixture(scope="module")
def host(bare: Host) -> Host:
    """Install, configure and start Citadel on the host."""
    bare.citadel_host("install")
    bare.write(ENV_FILE, from_the_guide(ENV_FILE), "640")
    bare.write("/etc/citadel/credentials/postgres_password", PASSWORD)
    bare.run("systemctl", "start", "citadel.target")
    bare.wait_well()
    return bare


def test_every_service_reports_that_it_is_ready(host):
    status = {unit: host.of(unit)["StatusText"] for unit in SERVICES}
    assert status["citadel-api.service"] == "serving"
    assert status["citadel-exporter.service"] == "serving on port 9808"
    assert status["citadel-beat.service"] == "leading"
    for unit in WORKERS:
        queue = unit.removeprefix("citadel-worker@").removesuffix(".service")
        assert status[unit].startswith(f"consuming {queue}: ")
    assert host.of("citadel-migrate.service")["Result"] == "success"


def test_a_workflow_runs_to_its_end(host):
    assert len(host.embed("a text")) == 384
    host.write("/tmp/ask.yaml", from_the_guide("ask.yaml"))
    assert "384" in host.run(CLI, "workflow", "run", "/tmp/ask.yaml")
    assert "citadel_queue_workers" in host.get("http://127.0.0.1:9808/metrics")


def test_the_host_s_systemd_finds_no_fault(host):
    units = [*SERVICES, "citadel-migrate.service", "citadel.slice", "citadel.target"]
    assert host.run("systemd-analyze", "verify", *units) == ""
    for unit in [*SERVICES, "citadel-migrate.service"]:
        output = host.run("systemd-analyze", "security", "--no-pager", unit)
        assert float(re.search(r"level for .*: ([0-9.]+)", output).group(1)) <= MOST_EXPOSED


def test_each_service_is_confined_and_within_its_budget(host):
    for unit in SERVICES:
        found = host.of(unit)
        assert found["ControlGroup"].endswith(f"/citadel.slice/{unit}")
        assert found["AllowedCPUs"]
        assert found["MemoryMax"].isdecimal()
        status = host.run("cat", f"/proc/{found['MainPID']}/status")
        assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\s2$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s0+$", status, re.MULTILINE)
        assert int(re.search(r"^Uid:\s(\d+)", status, re.MULTILINE).group(1)) > 0


def test_the_journal_has_json_lines_and_no_secret(host):
    for unit in SERVICES:
        assert all("event" in json.loads(line) for line in host.lines(unit))
    assert PASSWORD not in host.run("journalctl", "--no-pager")
    for unit in SERVICES:
        assert PASSWORD not in host.run("systemctl", "show", unit)
        assert PASSWORD not in host.sh(f"tr '\\0' '\\n' </proc/{host.pid(unit)}/environ")
    assert not host.succeeds("su", "-s", "/bin/sh", "citadel", "-c", "cat /etc/citadel/credentials/postgres_password")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_killed_service_is_started_again(host, unit):
    before = host.pid(unit)
    host.run("systemctl", "kill", "--signal=KILL", unit)
    eventually(lambda: host.is_well(unit) and host.pid(unit) != before, LONG)
    eventually(lambda: host.succeeds("curl", "-sf", "-m", "5", "http://127.0.0.1:8080/readyz"), LONG)
    assert len(host.embed(f"after the death of {unit}")) == 384


def test_a_service_that_hangs_is_replaced(host):
    """All of them at once: each start and each watchdog takes its time."""
    before = {unit: host.pid(unit) for unit in SERVICES}
    for pid in before.values():
        host.run("kill", "-STOP", str(pid))
    for unit, pid in before.items():
        eventually(lambda unit=unit, pid=pid: host.is_well(unit) and host.pid(unit) not in (0, pid), LONG)
        lines = [str(entry["MESSAGE"]) for entry in host.journal(unit)]
        assert any("Watchdog timeout" in line for line in lines)
    eventually(lambda: host.succeeds("curl", "-sf", "-m", "5", "http://127.0.0.1:8080/readyz"), LONG)
    assert len(host.embed("after all stood still")) == 384


def test_a_stop_is_polite_and_loses_nothing(host):
    host.sh("seq --format='a text of number %g' 2000 >/tmp/texts")
    run = host.run(CLI, "batch", "/tmp/texts", "--async").strip()
    host.run("systemctl", "stop", "citadel.target")
    for unit in SERVICES:
        eventually(lambda unit=unit: host.of(unit)["ActiveState"] in ("inactive", "failed"), LONG)
        found = host.of(unit)
        assert (found["ActiveState"], found["Result"], found["ExecMainStatus"]) == ("inactive", "success", "0"), unit
        assert any(re.search('"event": "[a-z]+_stopp(ing|ed)"', line) for line in host.lines(unit)), unit
    host.run("systemctl", "start", "citadel.target")
    host.wait_well()
    assert _end_of(host, run)["status"] == "succeeded"


def test_a_worker_waits_for_its_broker(host):
    host.run("systemctl", "stop", EMBEDDINGS)
    host.run("systemctl", "stop", "redis-server")
    with drop_in(host, EMBEDDINGS, "TimeoutStartSec=20\nWatchdogSec=6"):
        host.run("systemctl", "start", "--no-block", EMBEDDINGS)
        eventually(lambda: host.of(EMBEDDINGS).get("StatusText") == "waiting for the broker", LONG)
        began = int(host.of(EMBEDDINGS)["ExecMainStartTimestampMonotonic"])
        eventually(lambda: _monotonic(host) - began > 25_000_000)
        found = host.of(EMBEDDINGS)
        assert (found["ActiveState"], found["NRestarts"]) == ("activating", "0")
        host.run("systemctl", "start", "redis-server")
        host.wait_well(EMBEDDINGS)
        assert host.of(EMBEDDINGS)["NRestarts"] == "0"
    host.run("systemctl", "restart", EMBEDDINGS)


def test_a_wrong_setting_is_named_and_not_tried_again(host):
    with drop_in(host, EMBEDDINGS, "Environment=CITADEL_WORKER__CONCURRENCY=many"):
        assert not host.succeeds("systemctl", "restart", EMBEDDINGS)
        found = host.of(EMBEDDINGS)
        assert (found["ActiveState"], found["ExecMainStatus"], found["NRestarts"]) == ("failed", "78", "0")
        assert any("CITADEL_WORKER__CONCURRENCY" in str(entry["MESSAGE"]) for entry in host.journal(EMBEDDINGS))
    host.run("systemctl", "restart", EMBEDDINGS)


def test_the_guides_drop_ins_reach_every_process(host, tmp_path):
    """All at once, each with its files."""
    host.write("/etc/citadel/private-ca.pem", PrivateAuthority(tmp_path).file.read_text(), "644")
    host.write("/etc/citadel/resolv.conf", "nameserver 10.0.0.53", "644")
    host.write("/etc/citadel/hosts", "127.0.0.1 localhost\n10.0.0.7 llm.corp.example", "644")
    host.write("/etc/citadel/credentials/api__keys", json.dumps([KEY]))
    for path, text in drop_ins_of_the_guide().items():
        host.write(path, text, "644")
    host.run("systemctl", "daemon-reload")
    assert host.run("systemd-analyze", "verify", *SERVICES) == ""
    host.run("systemctl", "restart", "citadel.target")
    host.wait_well()
    for unit in SERVICES:
        variables = host.sh(f"tr '\\0' '\\n' </proc/{host.pid(unit)}/environ").splitlines()
        for wanted in (*EVERYWHERE, *OF_EMBEDDINGS) if unit == EMBEDDINGS else EVERYWHERE:
            assert wanted in variables, unit
        seen = host.sh(f"cat /proc/{host.pid(unit)}/root/etc/resolv.conf /proc/{host.pid(unit)}/root/etc/hosts")
        assert "10.0.0.53" in seen
        assert "llm.corp.example" in seen
    for address in ("[::1]", "127.0.0.1"):
        host.get(f"http://{address}:8080/livez")
        host.get(f"http://{address}:9808/metrics")
    folders = {path.rpartition("/")[0] for path in drop_ins_of_the_guide()}
    host.run("rm", "-r", "/etc/citadel/credentials/api__keys", *folders)
    host.run("systemctl", "daemon-reload")  # what runs forgets them when the next release is installed


def test_workers_can_be_added_and_removed(host):
    second = "citadel-worker@embeddings-2.service"
    host.citadel_host("scale", "embeddings", "2")
    host.wait_well(EMBEDDINGS, second)
    for name in ("MemoryMax", "AllowedCPUs", "CPUQuotaPerSecUSec"):
        assert host.of(second)[name] == host.of(EMBEDDINGS)[name]
    assert host.of(second)["StatusText"].startswith("consuming embeddings: ")
    host.citadel_host("scale", "embeddings", "1")
    assert host.of(second)["ActiveState"] == "inactive"
    assert host.is_well(EMBEDDINGS)


def test_a_release_can_be_upgraded_and_rolled_back(host):
    first = host.run("readlink", "/opt/citadel/current")
    before = host.pid(EMBEDDINGS)
    host.citadel_host("install")
    assert (host.run("readlink", "/opt/citadel/current"), host.pid(EMBEDDINGS)) == (first, before)
    host.run("env", "CITADEL_CORES=1", "/src/systemd/citadel-host", "install", timeout=LONG * 3)
    host.wait_well()
    assert host.run("readlink", "/opt/citadel/current") != first
    assert host.of(EMBEDDINGS)["AllowedCPUs"] == "0"
    host.run("citadel-host", "rollback")
    host.wait_well()
    assert host.run("readlink", "/opt/citadel/current") == first
    assert from_the_guide(ENV_FILE).strip() == host.run("cat", ENV_FILE).strip()
    eventually(lambda: host.succeeds("curl", "-sf", "-m", "5", "http://127.0.0.1:8080/readyz"), LONG)
    assert len(host.embed("after the rollback")) == 384


def test_uninstall_leaves_data_and_configuration_alone(host):
    found = "find / -xdev -name '*citadel*' -not -path '/proc/*' -not -path '/src/*' -not -path '/tmp/*'"
    pids = [host.pid(unit) for unit in SERVICES]
    host.citadel_host("uninstall")
    host.citadel_host("uninstall")
    assert not any(host.succeeds("test", "-d", f"/proc/{pid}") for pid in pids)
    left = set(host.sh(found).split())
    assert {"/etc/citadel", "/etc/citadel/citadel.env", "/var/lib/citadel"} <= left
    assert not [path for path in left if not path.startswith(("/etc/citadel", "/var/lib/citadel"))]
    assert host.run("systemctl", "list-units", "--all", "--no-legend", "--plain", "citadel*.service") == ""
    host.citadel_host("uninstall", "--purge")
    assert host.sh(found) == ""
    assert not host.succeeds("id", "citadel")


def _end_of(host: Host, run: str) -> dict[str, Any]:
    """Wait until a run has ended; return it."""

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = json.loads(host.get(f"http://127.0.0.1:8080/v1/runs/{run}"))
        return None if found["status"] in ("queued", "running") else found

    return eventually(ended, LONG) or {}


def _monotonic(host: Host) -> int:
    """Return the host's clock in microseconds, as in systemd's timestamps."""
    return int(float(host.run("cut", "-d ", "-f1", "/proc/uptime")) * 1_000_000)
