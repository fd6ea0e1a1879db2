"""Pages in a real browser, opened from disk: no complaint, no request, tables sort, the head is drawn."""

import numpy as np
import pytest
from report_trees import add_scan, write_tree

from bids_cpmae.bids.verdicts import FAIL, REVIEW, merge
from bids_cpmae.report.group import write_group
from bids_cpmae.report.participant import write_report

ROWS = "#scans tbody tr"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A tree with a page of sub-01 and of the dataset; one scan is unusual."""
    tree = write_tree(tmp_path_factory.mktemp("browser"))
    add_scan(tree, "far", brain_ml=2600.0)
    add_scan(tree, "doubt", REVIEW, "doubtful <b>registration</b>")
    merge(tree)
    write_report(tree, "01")
    write_group(tree)
    return tree


def open_and_draw(browser, page):
    """Open a participant's page and wait for its head."""
    browser.open(page)
    browser.run("document.getElementById('viewer').scrollIntoView()")
    browser.wait("return document.getElementById('head').dataset.drawn === 'sub-01_T1w'")


def column(browser, name):
    index = browser.texts("#scans thead button").index(name) + 1
    return index, browser.texts(f"{ROWS} td:nth-child({index})")


def click_head(browser, name):
    index, _ = column(browser, name)
    browser.run(f"document.querySelector('#scans thead th:nth-child({index}) button').click()")
    return column(browser, name)[1]


def shown(browser):
    return column(browser, "participant_id")[1]


@pytest.mark.parametrize("name", ["sub-01.html", "group.html"])
def test_pages_load_without_a_complaint_or_a_request(browser, out, name):
    if name == "group.html":
        browser.open(out / name)
        browser.run("document.querySelector('#table').scrollIntoView()")
    else:
        open_and_draw(browser, out / name)
    assert browser.complaints() == []
    assert browser.requests() == [(out / name).as_uri()]


def test_the_browser_would_tell(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="pixel.png"><script src="https://localhost:9/x.js"></script><script>nothing()</script>')
    browser.open(page)
    assert len(browser.requests()) == 3 and any("nothing" in line for line in browser.complaints())


def test_every_picture_is_drawn_and_nothing_sticks_out(browser, out):
    for name in ("sub-01.html", "group.html"):
        browser.driver.set_window_size(500, 900)
        browser.open(out / name)
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), name
        assert browser.run("return [...document.images].every(image => image.complete && image.naturalWidth > 100)")
    browser.driver.set_window_size(1200, 1000)


def test_outlines_can_be_put_away(browser, out):
    browser.open(out / "sub-01.html")
    state = "return getComputedStyle(document.querySelector('img.outline')).visibility"
    assert browser.run(state) == "visible"
    browser.run("document.querySelector('input.outlines').click()")
    assert browser.run(state) == "hidden"


def test_the_table_sorts(browser, out):
    browser.open(out / "group.html")
    assert shown(browser)[0] == "sub-01" and set(shown(browser)[1:3]) == {"sub-far", "sub-doubt"}
    for turn in (-1, 1):
        cells = click_head(browser, "brain_ml")
        numbers = [float(cell.replace(",", "")) for cell in cells if cell != "–"]
        assert numbers == sorted(numbers, key=lambda value: turn * value) and len(numbers) == 12
        assert cells[-1] == "–"
    assert browser.find('th[aria-sort="ascending"]')
    assert click_head(browser, "participant_id") == sorted(shown(browser))
    browser.run("document.getElementById('reset').click()")
    assert shown(browser)[0] == "sub-01" and not browser.find("th[aria-sort]")


def test_the_table_filters(browser, out):
    browser.open(out / "group.html")
    (find,) = browser.find("#find")
    find.send_keys("DOUBTFUL")
    assert shown(browser) == ["sub-doubt"] and browser.texts("#shown") == ["1 of 13 scans"]
    assert not browser.find(f"{ROWS} b")
    browser.run("document.getElementById('reset').click()")
    browser.find(f"input.verdict[value={FAIL}]")[0].click()
    assert FAIL not in column(browser, "verdict")[1] and len(shown(browser)) == 12
    browser.find("#unusual")[0].click()
    assert set(shown(browser)) == {"sub-far"}
    browser.run("document.getElementById('reset').click()")
    browser.run("const kind = document.getElementById('kind'); kind.value = 'T2w'; "
                "kind.dispatchEvent(new Event('change'))")  # fmt: skip
    assert column(browser, "source")[1] == ["sub-01/anat/sub-01_T2w.nii.gz"]


def test_links_lead_from_the_dataset_to_a_scan_and_back(browser, out):
    browser.open(out / "group.html")
    browser.find(f"{ROWS} td a")[0].click()
    browser.wait("return location.pathname.endsWith('/sub-01.html')")
    assert browser.run("return document.querySelector(location.hash) !== null")
    browser.find("header a")[0].click()
    browser.wait("return location.pathname.endsWith('/group.html')")


def test_the_head_is_drawn_and_turns(browser, out):
    open_and_draw(browser, out / "sub-01.html")
    assert browser.texts("#state") == [""]
    seen = []
    for button in ("[data-turn='180,10']", "[data-turn='270,10']", "[data-cut]", "[data-slices]"):
        browser.find(button)[0].click()
        browser.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seen.append(browser.picture("#head").astype(int))
    for picture in seen:
        lit = picture.max(axis=-1) > 40
        assert 0.02 < lit.mean() < 0.8 and len(np.unique(picture)) > 50
    for one, other in zip(seen, seen[1:]):
        assert (np.abs(one - other).max(axis=-1) > 40).mean() > 0.02
    assert browser.complaints() == []
