"""The viewer in headless Chromium, with real input events: nothing is loaded, and nothing is logged."""

from collections.abc import Iterator

import pytest
from browser import Browser
from made import report_of, study_files

WHERE = "document.getElementById('where').textContent"
WINDOW = "document.getElementById('window').textContent"
GREY = (
    "(() => { const c = document.getElementById('image'); const one = document.createElement('canvas')"
    ".getContext('2d', {willReadFrequently: true}); one.drawImage(c, -c.width * 0.45, -c.height * 0.5); "
    "return one.getImageData(0, 0, 1, 1).data[0]; })()"
)
"""Grey of a pixel of brain, read from a copy."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("viewer")
    study_files(folder / "in", "A", slices=12, bleed=5)
    any_ = {"A": [0.05, 0.1, 0.2, 0.4, 0.7, 0.95, 0.6, 0.3, 0.1, 0.1, 0.1, 0.1]}
    report_of(folder / "in", folder, any_)
    with Browser(folder) as browser:
        browser.open(folder / "report.html")
        browser.wait("document.getElementById('viewer').dataset.ready === 'true'")
        yield browser
        addresses = {address.rpartition("/")[2] for address in browser.requests}
        assert addresses == {"report.html"}
        assert browser.errors == []


def at(page: Browser, image: int) -> None:
    """Wait until an image is shown; images are counted from 1."""
    page.wait(f"{WHERE}.includes('({image} of 12)')")


def test_the_viewer_opens_at_the_highest_probability(page: Browser) -> None:
    page.wait(f"{WHERE} === 'image 7, z 25.0 mm (6 of 12)'")
    assert page.run(WINDOW) == "level 40, width 80 HU"
    for edge, letter in (("left", "R"), ("top", "A")):
        assert page.run(f"document.getElementById('{edge}').textContent") == letter
    assert page.run("document.querySelector('.panels .edge.left').textContent") == "R"
    assert page.run("document.getElementById('p5').textContent") == "0.95"


def test_the_wheel_and_the_keys_scroll(page: Browser) -> None:
    x, y = page.centre("#image")
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseReleased", x, y, button="left", clickCount=1)
    page.key("Home")
    at(page, 1)
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=100)
    at(page, 2)
    page.key("ArrowDown")
    at(page, 3)
    page.key("ArrowUp")
    at(page, 2)
    page.key("End")
    page.key("ArrowDown")  # there is none above
    at(page, 12)


def test_a_window_changes_what_is_drawn(page: Browser) -> None:
    page.key("1")
    page.wait(f"{WINDOW} === 'level 40, width 80 HU'")
    page.wait(f"{GREY} > 80")
    brain = page.run(GREY)
    page.key("4")
    page.wait(f"{WINDOW} === 'level 600, width 2800 HU'")
    page.wait(f"{GREY} !== {brain}")
    shown = page.run(GREY)
    assert shown == pytest.approx(255 * (32 + 800) / 2800, abs=3)  # brain of some 32 HU in the bone window
    page.click('[data-key="2"]')
    page.wait(f"{WINDOW} === 'level 80, width 200 HU'")
    assert page.run("document.querySelector('[data-key=\"2\"]').getAttribute('aria-pressed')") == "true"


def test_dragging_changes_width_and_level(page: Browser) -> None:
    page.click('[data-key="1"]')
    page.wait(f"{WINDOW} === 'level 40, width 80 HU'")
    x, y = page.centre("#image")
    page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    page.mouse("mouseMoved", x + 30, y + 10, button="left", buttons=1)
    page.mouse("mouseReleased", x + 30, y + 10, button="left", clickCount=1)
    page.wait(f"{WINDOW} === 'level 30, width 110 HU'")
    page.mouse("mouseMoved", x, y)
    assert page.run(WINDOW) == "level 30, width 110 HU"


def test_chart_slider_and_buttons_jump(page: Browser) -> None:
    page.click("#chart")
    page.wait(f"!{WHERE}.includes('(12 of 12)')")
    assert page.run("Number(document.getElementById('slider').value)") in {5, 6}  # the middle of z
    page.run("document.getElementById('slider').value = 1")
    page.run("document.getElementById('slider').dispatchEvent(new Event('input'))")
    at(page, 2)
    page.click(".key-image button")
    at(page, 6)


def test_no_page_is_wider_than_a_telephone(page: Browser) -> None:
    for width in (1200, 390):
        page.size(width, 800)
        wide = page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
    page.size(1200, 900)
