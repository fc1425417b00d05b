"""MLflow's own page in a real browser, on a real server that `sync` filled with real, tiny runs.

The pictures of the docs are made here: `SCREENSHOTS=docs/images pytest tests/reporting/tracking/test_mlflow_page.py`.
"""

import os
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmark.__main__ import main
from benchmark.reporting.tracking.mirror import sync
from tests.helpers.browser import browser, console_errors, screenshot, shown, until
from tests.helpers.fixtures import TINY
from tests.helpers.run_folders import runs_in
from tests.helpers.servers import Server

pytestmark = pytest.mark.slow
SIZES = {
    "data": {"digits": "optdigits", "digit_size": 8, "frame_size": 16, "context": 4, "horizon": 4},
    "model": {"hidden_channels": 8, "kernel_size": 3, "patch_size": 4},
    "training": {"steps": 30, "batch_size": 4, "log_every": 3, "validate_every": 10, "checkpoint_every": 30},
    "probe": {"steps": [10]},
}
# A server without accounts answers so to the page's question who its user is; the other is a notice of browsers.
KNOWN_ERRORS = ("/mlflow/users/current - Failed to load resource", "ResizeObserver loop completed")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three variants with two seeds each, trained, scored and probed."""
    folder = tmp_path_factory.mktemp("page")
    values = {key: value | SIZES.get(key, {}) if isinstance(value, dict) else value for key, value in TINY.items()}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    given = ["--protocol", str(folder / "tiny.yaml"), "--results-dir", str(folder / "results")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "off")
        for stage in ("data", "backbone"):
            assert main([stage, *given]) == 0
        for variant in TINY["variants"]:
            for seed in TINY["seeds"]:
                for stage in ("train", "evaluate", "probe"):
                    assert main([stage, *given, "--variant", variant, "--seed", str(seed)]) == 0
    return folder / "results"


@pytest.fixture(scope="module")
def server(results, tmp_path_factory):
    """A server that holds the runs."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(f"sqlite:///{folder}/server.db", folder)
    try:
        server.start()
        sync(results, store=server.uri)
        yield server
    finally:
        server.kill()


@pytest.fixture
def page(server):
    """The page, switched to model training as a person does it once."""
    with browser() as page:
        page.get(server.uri)
        shown(page, "//*[text()='Model training']").click()
        until(page, lambda page: "machine_learning" in str(stored(page)), "the switch is kept")
        close_assistant(page)
        page.get(f"{server.uri}/#/experiments")
        shown(page, "//a[.='tiny']").click()
        shown(page, "//a[.='predrnnpp seed=1']")
        close_assistant(page)
        yield page
        errors = [error for error in console_errors(page) if not any(known in error for known in KNOWN_ERRORS)]
        assert errors == [], "in the console of the page"


def stored(page):
    return page.execute_script("return Object.entries(localStorage)")


def close_assistant(page):
    """MLflow 3.17 opens a panel that asks for a language model over a third of the page, once for each browser."""
    page.execute_script("localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')")
    page.refresh()


def best_variant(page):
    shown(page, "//button[contains(., 'Views')]").click()
    shown(page, "//*[@role='menuitem' or @role='option' or self::button or self::span][.='Best variant']").click()
    shown(page, "//*[contains(text(), 'Group:')]")


def picture(page, name, tmp_path):
    """Keep what the page shows: small, and without a path of this machine."""
    text = page.find_element(By.TAG_NAME, "body").text
    for private in (str(tmp_path.parents[1]), os.getcwd(), f"{Path.home()}/"):
        assert private not in text
    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"mlflow_{name}.png"
    screenshot(page, path)
    assert 10_000 < path.stat().st_size < 150_000


def test_saved_view_shows_the_best_variant_first(page, server, tmp_path):
    runs = runs_in(server.uri, "tiny")
    means = {
        variant: sum(run.data.metrics["test/mse"] for run in runs if run.data.tags["variant"] == variant) / 2
        for variant in TINY["variants"]
    }
    best_variant(page)
    groups = [group.text for group in page.find_elements(By.XPATH, "//*[contains(text(), 'Group:')]")]
    assert groups == [f"Group: {variant}" for variant in sorted(means, key=means.get)]
    text = page.find_element(By.TAG_NAME, "body").text
    for mean in means.values():
        assert f"{mean:.4f}"[:-1] in text
    picture(page, "best_variant", tmp_path)


def test_charts_compare_variants_in_sections(page, tmp_path):
    best_variant(page)
    shown(page, "//label[.//input[@value='CHART']]").click()
    search = shown(page, "//input[@placeholder='Search metric charts']")
    shown(page, "//*[text()='System metrics']")
    heads = {head.text for head in page.find_elements(By.XPATH, "//*[contains(@class, 'accordion') or @role='button']")}
    for section in ("train", "val", "test", "probe"):
        assert any(head.split("\n")[0].split(" (")[0] == section for head in heads), heads
    search.send_keys("test/(mse|psnr|ssim)$|train/loss|val/")
    bars = "return [...document.querySelectorAll('.bars .point')].filter(bar => bar.getBBox().width > 9).length"
    until(page, lambda page: page.execute_script(bars) == 9, "three charts with a bar a variant")
    picture(page, "charts", tmp_path)


def test_search_by_protocol_and_variant_finds_the_runs(page):
    box = shown(page, "//input[contains(@placeholder, 'metrics.rmse')]")
    box.send_keys("tags.protocol = 'tiny' and tags.variant = 'predrnn'", Keys.ENTER)
    until(page, lambda page: "2 matching runs" in page.find_element(By.TAG_NAME, "body").text, "2 matching runs")
    assert len(page.find_elements(By.XPATH, "//a[starts-with(., 'predrnn seed=')]")) == 2


def test_run_shows_its_images(page, tmp_path):
    shown(page, "//a[.='predrnnpp seed=1']").click()
    shown(page, "//*[@role='tab' or self::a or self::button][contains(., 'Artifacts')]").click()
    sizes = set()
    for name in ("probe.png", "film.gif", "film.png"):
        shown(page, f"//*[text()='{name}']").click()
        shown(page, f"//*[text()[contains(., '/artifacts/{name}')]]")
        sizes.add(until(page, sizes_drawn, f"the image {name}"))
    assert len(sizes) == 3
    picture(page, "film", tmp_path)


def sizes_drawn(page):
    """Width and height of the images that can be seen, in pixels of their files."""
    wide = "[...document.images].filter(image => image.offsetWidth > 100)"
    return tuple(page.execute_script(f"return {wide}.flatMap(image => [image.naturalWidth, image.naturalHeight])"))
