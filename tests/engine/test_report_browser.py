"""The report of a run, shown by a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engine.report_pages import NASTY, a_run, an_evaluation, page_of
from tests.engine.summaries import a_summary


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: playwright's own, or the system's."""
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    from shutil import which

    with api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        place = str(own) if own.is_file() else which("chromium") or which("chromium-browser")
        if place is None:
            pytest.skip("there is no Chromium: apt-get install chromium, or playwright install chromium")
        opened = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it_without_complaints_and_without_scrolling_sideways(tmp_path, browser, width):
    long = "hospital-" + "a" * 120
    summary = a_summary(clients=[long, NASTY])
    summary["rounds"][1]["excluded"] = {long: "x" * 300}
    a_run(tmp_path, summary, {"options": {"task_file": "/" + "y" * 300}, "versions": {"python": "3.11"}})
    labels = [f"class {n}" for n in range(20)]
    page_of(tmp_path, an_evaluation(labels, np.diag(np.full(20, 5)).tolist()))
    page, said, asked = browser.new_page(viewport={"width": width, "height": 900}), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    images = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth, i.clientWidth])")
    assert len(images) == 2
    assert all(natural > 0 and 300 < shown <= width for natural, shown in images)
    # letters that are large enough, dark on light
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)") >= 14
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()
