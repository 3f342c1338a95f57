"""The page of a drive in a real browser: drawn, moved, asked, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.browser import Browser, find_browser

from gsmap_core.geometry.transforms import make_transform
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_core.viz.map_page import PageFrame, write_map_page

pytestmark = pytest.mark.browser

ORANGE, BLUE, GREEN = (255, 159, 28), (46, 134, 222), (38, 166, 91)


def drive() -> list[PageFrame]:
    """Six frames along x, 10 m apart: divider 3 m to the left, kerb to the right, a crossing."""
    frames = []
    for index in range(6):
        line = np.array([[-20.0, 3.0], [0.0, 3.0], [20.0, 3.0]])
        elements = [
            MapElement(0, line, score=0.8, covariance=np.array([[0.09, 0.0, 0.04]] * 3), id=1),
            MapElement(2, line * [1.0, -2.0], score=0.5, id=2),
        ]
        if index == 5:
            square = np.array([[10.0, -4.0], [14.0, -4.0], [14.0, 0.0], [10.0, 0.0]])
            elements.append(MapElement(1, square, closed=True, score=0.9, id=3))
        pose = make_transform(translation=[10.0 * index, 0.0, 0.0])
        local_map = VectorMap(tuple(elements), stamp_ns=index * 10**9, map_from_base=pose)
        grey = np.full((120, 320, 3), 40 * index, np.uint8)
        strip = cv2.imencode('.jpg', grey)[1].tobytes()
        frames.append(PageFrame(index, local_map, strip))
    return frames


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kerb = MapElement(2, np.array([[-40.0, -6.2], [90.0, -6.2]]))
    truth = VectorMap((kerb,), range=PerceptionRange(-40, 90, -20, 20), reference='map')
    path = tmp_path_factory.mktemp('page') / 'drive.html'
    return write_map_page(path, drive(), truth, title='town · test', min_score=0.4).path


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip('no Chromium found (apt-get install chromium, or set GSMAP_BROWSER)')
    with Browser(program, tmp_path_factory.mktemp('profile')) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    """The page anew, on a desk, by day."""
    browser.requests.clear()
    browser.problems.clear()
    browser.resize(1200, 800)
    browser.prefer('light')
    browser.call('Page.navigate', url='about:blank')
    browser.open(page)
    return browser


def picture(browser: Browser, tmp_path: Path) -> np.ndarray:
    image = cv2.imread(str(browser.screenshot(tmp_path / 'shot.png')))
    return image[..., ::-1].astype(int)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of a colour in the map alone (the chips have the same colours)."""
    part = image[150:700, :700]
    return int((np.abs(part - colour).max(axis=-1) < 40).sum())


def place(browser: Browser, x_m: float, y_m: float) -> tuple[float, float]:
    """Where a point of the map lies while the view follows the vehicle of the first frame."""
    left, top, width, height = browser.evaluate(
        "(r => [r.left, r.top, r.width, r.height])(document.getElementById('map')"
        '.getBoundingClientRect())'
    )
    scale = max(min(width, height) / 70, fitted_scale(width, height))
    return left + width / 2 + scale * x_m, top + height / 2 - scale * y_m


def fitted_scale(width: float, height: float) -> float:
    """Pixels per metre that show 50 m of way and 30 m around it."""
    return min(width / 110, height / 60)


def click(browser: Browser, selector: str) -> None:
    browser.evaluate(f'document.querySelector({selector!r}).click()')
    browser.settle()


def details(browser: Browser) -> str:
    return browser.evaluate("document.getElementById('details').innerText").lower()


def test_it_draws_without_an_error_and_without_the_net(opened: Browser, tmp_path: Path) -> None:
    image = picture(opened, tmp_path)
    assert min(count(image, colour) for colour in (ORANGE, GREEN)) > 200
    assert opened.problems == []
    assert {url.split(':')[0] for url in opened.requests} <= {'file', 'data', 'about'}
    assert sum(url.startswith('file:') for url in opened.requests) == 1
    assert opened.evaluate("document.getElementById('summary').textContent") == '6 frames, 5 s'


def test_layers_are_switched_off(opened: Browser, tmp_path: Path) -> None:
    before = picture(opened, tmp_path)
    click(opened, "[data-layer='0']")
    after = picture(opened, tmp_path)
    assert count(after, ORANGE) < 0.05 * count(before, ORANGE)
    assert count(after, GREEN) > 0.8 * count(before, GREEN)
    assert opened.evaluate('document.querySelector(\'[data-layer="0"]\').ariaPressed') == 'false'
    click(opened, "[data-layer='0']")
    assert count(picture(opened, tmp_path), ORANGE) > 0.8 * count(before, ORANGE)


def test_the_slider_shows_another_frame(opened: Browser, tmp_path: Path) -> None:
    first = opened.evaluate("document.getElementById('strip').src")
    assert '2 elements' in details(opened)
    blue = count(picture(opened, tmp_path), BLUE)
    opened.evaluate(
        "(s => { s.value = 5; s.dispatchEvent(new Event('input')); })"
        "(document.getElementById('frame'))"
    )
    opened.settle()
    assert opened.evaluate("document.getElementById('clock').textContent") == '5.0 s · frame 5'
    assert '3 elements' in details(opened)
    assert opened.evaluate("document.getElementById('strip').src") != first
    assert opened.evaluate("document.getElementById('strip').naturalWidth") == 320
    assert count(picture(opened, tmp_path), BLUE) > blue + 100
    opened.evaluate("document.getElementById('map').focus()")
    opened.call('Input.dispatchKeyEvent', type='keyDown', key='ArrowLeft', code='ArrowLeft')
    assert opened.evaluate("document.getElementById('frame').value") == '4'


def test_an_element_says_how_sure_it_is(opened: Browser) -> None:
    click(opened, '#follow')
    opened.mouse('moved', *place(opened, 5.0, 3.0))
    text = details(opened)
    assert 'divider' in text and '0.80' in text and '40.0 m' in text
    assert '0.30 × 0.20 m' in text
    opened.mouse('moved', *place(opened, 5.0, 0.0))
    assert 'point at a line' in details(opened)
    # A click pins it.
    opened.click(*place(opened, 5.0, -6.0))
    opened.mouse('moved', *place(opened, 5.0, 9.0))
    text = details(opened)
    assert 'boundary' in text and 'not predicted' in text and '0.50' in text
    # With everything predicted out of the way the truth beneath can be asked.
    opened.click(*place(opened, 5.0, 9.0))
    click(opened, "[data-layer='all']")
    opened.evaluate(
        "(s => { s.value = 0.7; s.dispatchEvent(new Event('input')); })"
        "(document.getElementById('score'))"
    )
    opened.mouse('moved', *place(opened, 5.0, -6.2))
    assert 'ground truth' in details(opened)


def test_it_moves_and_zooms(opened: Browser) -> None:
    click(opened, '#follow')
    opened.mouse('moved', *place(opened, 5.0, 3.0))
    assert 'divider' in details(opened)
    x, y = place(opened, 0.0, 12.0)
    opened.mouse('pressed', x, y)
    opened.mouse('moved', x, y + 40, buttons=1)
    opened.mouse('moved', x, y + 80, buttons=1)
    opened.mouse('released', x, y + 80)
    opened.mouse('moved', *place(opened, 5.0, 3.0))
    assert 'divider' not in details(opened)
    x, y = place(opened, 5.0, 3.0)
    opened.mouse('moved', x, y + 80)
    assert 'divider' in details(opened)
    before = opened.evaluate("document.getElementById('scale').innerText")
    opened.mouse('wheel', x, y + 80, deltaX=0, deltaY=-1500)
    opened.settle()
    assert opened.evaluate("document.getElementById('scale').innerText") != before
    opened.mouse('moved', x + 1, y + 80)
    assert 'divider' in details(opened)


def test_light_and_dark(opened: Browser, tmp_path: Path) -> None:
    assert picture(opened, tmp_path)[680, 300].min() > 200
    opened.prefer('dark')
    assert picture(opened, tmp_path)[680, 300].max() < 60
    click(opened, '#theme')
    assert picture(opened, tmp_path)[680, 300].min() > 200


def test_on_a_phone(opened: Browser, page: Path) -> None:
    opened.resize(390, 780, 2.0, mobile=True)
    try:
        opened.open(page)
        width, height = opened.evaluate(
            '[document.documentElement.scrollWidth, document.documentElement.scrollHeight]'
        )
        assert (width, height) == (390, 780)
        for name in ('map', 'strip', 'frame', 'details', 'theme', 'follow'):
            box = opened.evaluate(
                f"(r => [r.left, r.top, r.right, r.bottom])(document.getElementById('{name}')"
                '.getBoundingClientRect())'
            )
            assert box[0] >= 0 and box[2] <= 390 and 0 <= box[1] < box[3] <= 780, name
        assert opened.evaluate("document.getElementById('map').clientHeight") > 250
        click(opened, '#follow')
        opened.tap(*place(opened, 6.0, 3.0))
        assert 'divider' in details(opened)
        assert opened.problems == []
    finally:
        opened.resize(1200, 800)
