"""The dashboard and the report as a reader sees them: the real server, a real browser (`make browser`)."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import generate, generate_tasks, write_page

from bench.views import dashboard
from bench.views import mlflow as tracking

pytestmark = pytest.mark.browser
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("DITBENCH_BROWSER") or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium here (set DITBENCH_BROWSER to one)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dashboard.Server, str]]:
    """A served matrix of two variants and two seeds, one cell of which diverged; the id of a cell's run."""
    store = generate(tmp_path_factory.mktemp("runs"), variants=2, seeds=2, steps=400)
    write_page(store, "synthetic")
    tracking.sync(store, "synthetic")
    client = tracking.connect(store)
    experiment = client.get_experiment_by_name("synthetic")
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = dashboard.serve(store, "synthetic", port=port)
    yield served, runs["variant-00 seed 0"]
    served.stop()


def page(browser: Any, url: str, shot: Path, height: int = 950) -> Any:
    """A fresh page at an address, with MLflow's assistant out of the way."""
    made = browser.new_page(viewport={"width": 1700, "height": height})
    made.set_default_timeout(60_000)
    made.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    made.goto(url)
    made.shot = lambda: made.screenshot(path=str(shot))
    return made


def columns(shown: Any) -> list[str]:
    """The headings of MLflow's run table, from left to right."""
    headings = shown.locator(".ag-header-cell:not(.ag-column-hover):visible")
    places = {h.inner_text().strip(): h.bounding_box()["x"] for h in headings.all() if h.inner_text().strip()}
    return sorted(places, key=lambda heading: places[heading])


def test_the_run_table_shows_every_cell_and_what_a_reader_wants_first(
    browser: Any, server: Any, tmp_path: Path
) -> None:
    shown = page(browser, server[0].by_cell, tmp_path / "cells.png")
    shown.get_by_text("variant-01 seed 1").first.wait_for()
    text = shown.locator(".ag-root").inner_text()
    for name in ("variant-00 seed 0", "variant-00 seed 1", "variant-01 seed 0", "variant-01 seed 1", "diverged"):
        assert name in text
    order = columns(shown)
    assert order[2:5] == ["variant", "seed", "status"] and order[5:7] == ["KID", "FID"]
    assert order[7:9] == ["validation loss", "images/s"]
    shown.shot()


def test_variants_are_grouped_over_their_seeds(browser: Any, server: Any, tmp_path: Path) -> None:
    shown = page(browser, server[0].by_variant, tmp_path / "variants.png")
    shown.get_by_text("variant-01").first.wait_for()
    assert {"Group: variant-00", "Group: variant-01"} <= set(shown.locator(".ag-root").inner_text().splitlines())
    shown.shot()


def test_the_experiment_s_own_page_leads_to_the_views_and_the_report(browser: Any, server: Any, tmp_path: Path) -> None:
    shown = page(browser, server[0].url, tmp_path / "experiment.png")
    shown.get_by_role("link", name="report", exact=True).first.wait_for()
    places = {
        name: shown.get_by_role("link", name=name, exact=True).first.get_attribute("href")
        for name in ("by cell", "by variant", "curves and samples", "report")
    }
    assert server[0].by_cell.endswith(places["by cell"]) and server[0].by_variant.endswith(places["by variant"])
    assert places["curves and samples"].endswith("compareRunsMode=CHART")
    report_page = page(browser, server[0].base + "/" + places["report"], tmp_path / "artifact.png")
    report_page.frame_locator("iframe").first.get_by_role("heading", name="Quality against cost").wait_for()
    shown.shot()


def test_charts_and_image_grids_are_rendered(browser: Any, server: Any, tmp_path: Path) -> None:
    """On a tall page: MLflow renders what is in view alone."""
    shown = page(browser, server[0].by_cell + "&compareRunsMode=CHART", tmp_path / "charts.png", height=3000)
    shown.locator(".js-plotly-plot .barlayer .trace").first.wait_for()
    shown.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    text = shown.locator("body").inner_text()
    order = [
        text.index(word) for word in ("Model metrics", "samples/samples", "train/loss", "heldout_loss_by_timestep")
    ]
    assert order == sorted(order) and "bin3" not in text, "the long sections are folded"
    image = shown.locator("img[src*='get-artifact']").first
    image.wait_for()
    assert "step%2B400" in image.get_attribute("src"), "the last step"
    assert image.evaluate("one => one.naturalWidth") > 0
    shown.shot()


def test_system_metrics_of_a_cell(browser: Any, server: Any, tmp_path: Path) -> None:
    served, cell = server
    shown = page(browser, served.url.removesuffix("/runs") + f"/runs/{cell}/system-metrics", tmp_path / "system.png")
    shown.get_by_text("cpu_utilization_percentage").first.wait_for()
    shown.shot()


@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_of_a_report_fits_a_phone_and_a_desk(browser: Any, tmp_path: Path, width: int) -> None:
    """No sideways scrolling of the page itself, no request to anywhere, every image there."""
    path = write_page(generate(tmp_path, variants=3, seeds=2, steps=400), "synthetic")
    asked: list[str] = []
    shown = browser.new_page(viewport={"width": width, "height": 900})
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(path.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert shown.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert shown.locator("tr.failed").count() == 1
    shown.screenshot(path=str(tmp_path / f"report-{width}.png"), full_page=True)


@pytest.mark.parametrize("width", [390, 1300])
def test_the_report_of_tasks_answers_first_and_its_tables_sort_and_drop_columns(
    browser: Any, tmp_path: Path, width: int
) -> None:
    path = write_page(generate_tasks(tmp_path), "tasks")
    shown = browser.new_page(viewport={"width": width, "height": 900})
    shown.goto(path.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    seen = shown.locator("figure img:visible").first
    assert seen.bounding_box()["y"] < 300, "the capability figure is on the first screen"
    assert ("phone" in (seen.get_attribute("class") or "")) == (width == 390)
    assert shown.locator("ul.answers li").first.bounding_box()["y"] < (2200 if width == 390 else 1400)

    shown.get_by_role("heading", name="Means over seeds").click()
    table = shown.locator("table.means")
    headings = table.locator("thead th").all_inner_texts()
    k = next(k for k, heading in enumerate(headings) if heading.startswith("excess"))

    def column(place: int) -> list[str]:
        return [row.locator("td").nth(place).inner_text() for row in table.locator("tbody tr").all()]

    first = column(0)
    for sign in (1, -1):
        table.locator("thead th").nth(k).locator("button").click()
        values = [sign * float(text.split()[0].replace(",", "")) for text in column(k) if text[0].isdigit()]
        assert values == sorted(values) and len(set(values)) > 2
    assert sorted(column(0)) == sorted(first) and column(0) != first

    part = shown.locator("details.part", has=table)
    part.get_by_text("Choose columns").click()
    part.get_by_label(headings[k], exact=True).uncheck()
    assert not table.locator("thead th").nth(k).is_visible() and table.locator("thead th").nth(0).is_visible()
    before = table.locator("tbody td").first.bounding_box()["x"]
    shown.locator(".wide", has=table).evaluate("one => { one.scrollLeft = 400; }")
    assert table.locator("tbody td").first.bounding_box()["x"] == pytest.approx(before, abs=2), (
        "it keeps its first column"
    )
    assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shown.screenshot(path=str(tmp_path / f"tasks-{width}.png"), full_page=True)


def test_the_report_is_read_without_a_script(browser: Any, tmp_path: Path) -> None:
    path = write_page(generate_tasks(tmp_path, tasks=("scene", "bind")), "tasks")
    shown = browser.new_context(java_script_enabled=False).new_page()
    shown.goto(path.as_uri())
    for name in ("Means over seeds", "Where the numbers come from"):
        shown.get_by_role("heading", name=name).click()
    assert shown.locator("table.means tbody tr").first.is_visible() and shown.locator("dl dd").first.is_visible()
    assert shown.locator("figure img:visible").count() >= 1 and shown.get_by_text("Choose columns").count() == 0
