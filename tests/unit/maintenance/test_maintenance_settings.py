"""Settings of the maintenance worker from environment variables."""

import pytest

from citadel_common.settings.common import EX_CONFIG, load
from citadel_maintenance.settings import MaintenanceSettings


def test_the_worker_keeps_two_threads_when_other_worker_settings_change(monkeypatch):
    monkeypatch.setenv("CITADEL_WORKER__STOP_GRACE", "7")
    worker = load(MaintenanceSettings).worker
    assert (worker.concurrency, worker.stop_grace) == (2, 7.0)


def test_the_cache_has_no_budget_unless_one_is_set(monkeypatch):
    assert load(MaintenanceSettings).maintenance.cache_max_bytes is None
    monkeypatch.setenv("CITADEL_MAINTENANCE__CACHE_MAX_BYTES", "")
    assert load(MaintenanceSettings).maintenance.cache_max_bytes is None
    monkeypatch.setenv("CITADEL_MAINTENANCE__CACHE_MAX_BYTES", "1000000")
    assert load(MaintenanceSettings).maintenance.cache_max_bytes == 1_000_000


def test_models_to_keep_are_read_from_a_comma_separated_list(monkeypatch):
    monkeypatch.setenv("CITADEL_MAINTENANCE__KEEP_MODELS", "bge-m3, mine:7b")
    assert load(MaintenanceSettings).maintenance.keep_models == ["bge-m3", "mine:7b"]


@pytest.mark.parametrize(
    ("name", "value"), [("DUTY", "0"), ("TIME_LIMIT", "3600"), ("RUN_RETENTION", "-1"), ("X", "1")]
)
def test_a_wrong_setting_ends_the_process_and_is_named(monkeypatch, capsys, name, value):
    monkeypatch.setenv(f"CITADEL_MAINTENANCE__{name}", value)
    with pytest.raises(SystemExit) as ended:
        load(MaintenanceSettings)
    assert ended.value.code == EX_CONFIG
    assert f"CITADEL_MAINTENANCE__{name}" in capsys.readouterr().err
