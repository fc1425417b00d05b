"""A report of Snakemake in a browser, gone through by its menus as a person does."""

from collections.abc import Iterator
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from tests.helpers.browser import browser, console_errors, shown, until

SHOWN_IMAGES = "return [...document.images].length && [...document.images].every(one => one.naturalWidth > 0)"


def went_through(report: Path) -> dict[str, list[str]]:
    """Open every result of `report` by its menus: path of a result -> first column of its table, empty for a picture.

    Raises:
        AssertionError: a picture is empty, a table has no rows or cannot be sorted, or the console has an error.
    """
    seen = {}
    with browser() as page:
        page.get(report.resolve().as_uri())
        shown(page, "//h1[starts-with(text(), 'Deep in Time')]")
        for category, parts in page.execute_script("return categories").items():
            for part, paths in parts.items():
                open_part(page, category, part if len(parts) > 1 else None)
                found = dict(open_results(page))
                assert set(found) == set(paths), (category, part)
                seen |= found
        assert console_errors(page) == []
    return seen


def open_part(page: WebDriver, category: str, part: str | None) -> None:
    """From wherever the page is to the list of a part of a category."""
    page.execute_script("app.setView({ navbarMode: 'menu', content: 'rulegraph' })")
    for words in filter(None, (category, part)):
        shown(page, f"//li/a[span[text()='{words}']]").click()
    shown(page, "//thead/tr/th")


def open_results(page: WebDriver) -> Iterator[tuple[str, list[str]]]:
    """Open each row of the list that is shown, under each value of its toggle if it has one."""
    toggle = page.find_elements(By.XPATH, "//fieldset//label")
    for choice in toggle or [None]:
        if choice:
            choice.click()
        for row in page.find_elements(By.XPATH, "//tbody/tr[td//a]"):
            row.find_element(By.XPATH, ".//td[last()]//a").click()
            path = page.execute_script("return app.state.resultPath")
            what = page.execute_script("return app.state.content")
            if what == "img":
                until(page, lambda page: page.execute_script(SHOWN_IMAGES), path)
                yield path, []
            else:
                page.switch_to.frame(shown(page, "//iframe"))
                yield path, column_of(page) if page.find_elements(By.TAG_NAME, "th") else film_of(page, path)
                page.switch_to.default_content()


def film_of(page: WebDriver, path: str) -> list[str]:
    """Nothing, once the moving picture of the page is there."""
    until(page, lambda page: page.execute_script(SHOWN_IMAGES), path)
    return []


def column_of(page: WebDriver) -> list[str]:
    """The first column of the table of the page as it stands, after the table has been sorted by it both ways."""
    first = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent)"
    before = page.execute_script(first)
    head = shown(page, "//th")
    head.click()
    up = page.execute_script(first)
    assert head.get_attribute("aria-sort") == "ascending"
    head.click()
    assert head.get_attribute("aria-sort") == "descending"
    down = page.execute_script(first)
    assert sorted(before) == sorted(up) == sorted(down)
    assert (up != down) == (len(set(before)) > 1)
    return before
