"""The plan of processors, for hosts of any size."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.cpu_plan import __main__ as command
from compose.cpu_plan.budget import CONTAINERS, CORES, GROUPS
from compose.cpu_plan.plan import as_cpuset, plan, variables

ROOT = Path(__file__).resolve().parents[3]
HOSTS = st.integers(min_value=1, max_value=1024)


@given(HOSTS)
def test_no_share_exceeds_the_hosts_cores(cores):
    for share in plan(cores):
        assert share.cores, share
        assert set(share.cores) <= set(range(cores))
        assert 0 < share.limit <= len(share.cores) <= cores


@given(HOSTS)
def test_every_core_is_used(cores):
    assert {core for share in plan(cores) for core in share.cores} == set(range(cores))


@given(HOSTS)
def test_derived_numbers_follow_the_limit_and_are_at_least_one(cores):
    for share in plan(cores):
        if share.container.concurrency:
            assert share.concurrency == max(1, int(share.limit * share.container.per_core))


@given(HOSTS)
def test_the_plan_depends_on_the_number_alone(cores):
    assert variables(plan(cores)) == variables(plan(cores))


@given(HOSTS)
def test_ollama_has_a_thread_for_each_core_it_may_use_and_not_one_more(cores):
    share = next(share for share in plan(cores) if share.container.service == "ollama")
    assert share.concurrency == int(share.limit) <= len(share.cores)


@given(st.integers(min_value=CORES, max_value=1024))
def test_from_sixteen_cores_on_models_share_at_most_the_core_at_their_edge(cores):
    of = {share.container.group: set(share.cores) for share in plan(cores)}
    for other in set(of) - {"models"}:
        assert len(of["models"] & of[other]) <= 2


def test_the_plan_for_sixteen_cores_is_the_budget():
    shares = plan(CORES)
    assert [share.limit for share in shares] == [container.limit for container in CONTAINERS]
    by_group = {share.container.group: share.cpuset for share in shares}
    assert by_group == {
        "house": "0",
        "redis": "1",
        "record": "2-3",
        "vectors": "4-5",
        "observability": "6-7",
        "models": "8-9,12-15",
        "embeddings": "10-11",
    }


def test_the_groups_of_the_budget_divide_the_host():
    cores = sorted(core for group in GROUPS for span in group.spans for core in range(*span))
    assert cores == list(range(CORES))


def test_on_two_cores_the_groups_share_them():
    of = {share.container.service: share for share in plan(2)}
    assert (of["ollama"].cpuset, of["ollama"].concurrency) == ("1", 1)
    assert (of["redis"].cpuset, of["redis"].limit) == ("0", 1.0)
    assert (of["embeddings"].limit, of["embeddings"].concurrency) == (1.0, 16)


@pytest.mark.parametrize(("cores", "text"), [((0,), "0"), ((0, 1, 2), "0-2"), ((8, 9, 12, 13), "8-9,12-13")])
def test_cpusets_are_written_as_the_kernel_does(cores, text):
    assert as_cpuset(cores) == text


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def eight_cores(self, monkeypatch):
        monkeypatch.setattr(command, "host_cores", lambda: 8)

    def test_the_plan_of_this_host_is_printed_and_written(self, tmp_path, capsys):
        assert command.main(["--output", str(tmp_path / "cpu.env")]) == 0
        written = (tmp_path / "cpu.env").read_text()
        assert {line.partition("=")[0]: line.partition("=")[2] for line in written.splitlines()[1:]} == variables(
            plan(8)
        )
        assert capsys.readouterr().out.startswith("8 cores\n")

    def test_fewer_cores_can_be_planned_but_not_more(self, tmp_path, capsys):
        output = tmp_path / "cpu.env"
        assert command.main(["--cpus", "3", "--output", str(output)]) == 0
        before = output.read_text()
        assert command.main(["--cpus", "9", "--output", str(output)]) == 2
        assert "--cpus 9 is out of range: this host has 8 cores" in capsys.readouterr().err
        assert command.main(["--cpus", "0", "--output", str(output)]) == 2
        assert output.read_text() == before

    def test_show_prints_the_plan_of_any_host_and_writes_nothing(self, tmp_path, capsys):
        assert command.main(["--cpus", "64", "--show", "--output", str(tmp_path / "cpu.env")]) == 0
        assert capsys.readouterr().out.startswith("64 cores\n")
        assert not (tmp_path / "cpu.env").exists()


def test_the_command_runs_with_the_standard_library_alone():
    """`-I` and `-S` hide this environment's packages, so only the standard library is left."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from compose.cpu_plan.__main__ import main; main(['--show'])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
