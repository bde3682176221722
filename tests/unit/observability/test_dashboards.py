"""The dashboards' files are what their module renders, and every panel is described."""

import pytest

from compose.observability.dashboards.__main__ import ALL, FOLDER, text
from tests.unit.observability.files import DASHBOARDS, STACK, dashboard, load, panels

PAGES = [pytest.param(dashboard(path), id=path.stem) for path in DASHBOARDS]
SOURCES = load("grafana/provisioning/datasources/citadel.yaml")["datasources"]
UNITS = {"short", "s", "ops", "reqps", "bytes", "percentunit", "bool_on_off"}


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.uid)
def test_the_committed_file_is_up_to_date(page):
    assert (FOLDER / f"{page.uid}.json").read_text() == text(page)


def test_the_files_are_exactly_those_of_the_modules():
    assert {path.stem for path in DASHBOARDS} == {page.uid for page in ALL}
    assert {page.title.split(" · ")[1] for page in ALL} == {
        "Overview",
        "Embeddings",
        "Workflows",
        "Hosts",
        "Dead letters",
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_panel_has_unit_description_and_queries(page):
    for panel in panels(page):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["targets"], panel["title"]


@pytest.mark.parametrize("page", PAGES)
def test_panels_lie_side_by_side(page):
    taken = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])


@pytest.mark.parametrize("page", PAGES)
def test_data_sources_are_those_that_are_provisioned(page):
    known = {source["uid"]: source["type"] for source in SOURCES}
    used = [panel["datasource"] for panel in panels(page)]
    used += [target["datasource"] for panel in panels(page) for target in panel["targets"]]
    used += [entry["datasource"] for entry in (*page["templating"]["list"], *page["annotations"]["list"])]
    assert {(source["uid"], source["type"]) for source in used} <= set(known.items())


@pytest.mark.parametrize("page", PAGES)
def test_variables_that_are_used_are_declared(page):
    declared = {variable["name"] for variable in page["templating"]["list"]}
    for panel in panels(page):
        for target in panel["targets"]:
            words = target["expr"].replace("$__rate_interval", "")
            used = {part.split('"')[0] for part in words.split("$")[1:]}
            assert used <= declared, panel["title"]
    assert all(f"${name}" in str(page["panels"]) for name in declared)


def test_the_provider_reads_where_the_files_are_mounted():
    (provider,) = load("grafana/provisioning/dashboards/citadel.yaml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert (STACK / "grafana/dashboards").is_dir()
