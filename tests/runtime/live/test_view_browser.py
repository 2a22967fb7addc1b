"""The browser view in a real browser: clicked, typed at, and its pixels read back."""

import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from velatura.runtime.errors import SinkError
from velatura.runtime.frame import Colour
from velatura.runtime.web import ViewSink

from . import showing
from .chromium import Chromium, Page, found
from .showing import BITS, CODE, HEIGHT, PATCHES, WIDTH, FakePanel, Feeder

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium here")

LADDER = (("full size", 0.0412), ("half size", 0.0127), ("every second frame", 0.0063), ("off", 0.0))
SCREENSHOTS = os.environ.get("VELATURA_SCREENSHOTS")
"""A folder in which the pictures that the tests take are kept, to be looked at."""

GRAB = f"""
window.grab = (selector) => {{
  const canvas = window.grabbed ??= document.createElement("canvas");
  canvas.width = {WIDTH}; canvas.height = {HEIGHT};
  const pen = canvas.getContext("2d", {{ willReadFrequently: true }});
  pen.drawImage(document.querySelector(selector), 0, 0, {WIDTH}, {HEIGHT});
  return pen.getImageData(0, 0, {WIDTH}, {HEIGHT}).data;
}};
window.pixel = (data, x, y) => Array.from(data.slice((y * {WIDTH} + x) * 4, (y * {WIDTH} + x) * 4 + 3));
window.code = (data) => {{
  let value = 0;
  for (let bit = 0; bit < {BITS}; bit += 1) {{
    const x = Math.floor((bit + 0.5) * {WIDTH} / {BITS});
    value = value * 2 + (pixel(data, x, {(CODE + HEIGHT) // 2})[1] > 127 ? 1 : 0);
  }}
  return value;
}};
window.ages = (selector, count) => new Promise((done) => {{
  const found = [], element = document.querySelector(selector);
  let last = -1;
  const look = () => {{
    const value = code(grab(selector));
    if (value !== last) {{
      last = value;
      const now = (performance.timeOrigin + performance.now()) % {1 << BITS};
      found.push([value, (now - value + {1 << BITS}) % {1 << BITS}]);
    }}
    if (found.length === count) done(found); else next();
  }};
  const next = () => element.requestVideoFrameCallback
    ? element.requestVideoFrameCallback(look) : requestAnimationFrame(look);
  next();
}});
"""
"""`ages`: the time codes of frames as they are shown, and the milliseconds since they were drawn."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def panel(tmp_path: Path) -> FakePanel:
    return FakePanel(tmp_path, showing.patches(640, 362))


@pytest.fixture
def view(panel: FakePanel) -> Iterator[ViewSink]:
    with ViewSink(controls=panel, ladder=lambda: LADDER) as sink, Feeder(sink):
        yield sink


def opened(browser: Chromium, url: str, how: str = "WebRTC", **options: Any) -> Page:
    """A tab that shows the picture."""
    page = browser.page(url, **options)
    page.run(GRAB)
    page.until(f"document.querySelector('#how').textContent.startsWith('{how}')")
    page.until("document.querySelector('#curtain').hidden")
    page.until("!document.querySelector('#model').disabled")
    return page


def colours(page: Page, selector: str) -> list[list[int]]:
    """In the middle of each patch, as the page shows it."""
    places = [[round((n + 0.5) * WIDTH / len(PATCHES)), HEIGHT // 3] for n in range(len(PATCHES))]
    return page.run(f"(d => {places}.map(([x, y]) => pixel(d, x, y)))(grab('{selector}'))")


def becomes(page: Page, panel: FakePanel, name: str, value: Any) -> None:
    """Wait until a switch has been set."""
    for _ in range(100):
        if getattr(panel, name) == value:
            return
        page.run("new Promise(done => setTimeout(done, 30))")
    assert getattr(panel, name) == value


@pytest.mark.parametrize(("query", "how", "selector"), [
    ("", "WebRTC, H.264", "#video"), ("&mjpeg", "MJPEG, as the address asks", "#still"),
])  # fmt: skip
def test_the_picture_moves_has_its_colours_and_is_soon_there(
    browser: Chromium, view: ViewSink, query: str, how: str, selector: str
) -> None:
    page = opened(browser, view.url + query, how.split(",")[0])
    assert page.run("document.querySelector('#how').textContent") == how
    found = np.array(colours(page, selector))
    # H.264 at this size moves an 8-bit sample by a few steps; a wrong matrix moves green by 20.
    assert np.abs(found - np.array(PATCHES)).max() <= 8, found
    ages = page.run(f"ages('{selector}', 40)")
    codes = np.unwrap([code for code, _ in ages], period=1 << BITS)
    assert (np.diff(codes) > 0).all(), "an older frame was shown after a newer one"
    assert 10 < np.median(np.diff(codes)) < 100
    delays = sorted(age for _, age in ages)
    # Measured 23 ms for WebRTC and 12 ms for JPEG; other work on the cores must not fail the test.
    assert statistics.median(delays) < 250, delays
    assert not page.complaints
    page.close()


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_colours_are_those_of_the_frames_own_matrix(
    browser: Chromium, panel: FakePanel, matrix: Any
) -> None:
    frame = showing.patches(colour=Colour(matrix=matrix))
    with ViewSink(controls=panel) as sink, Feeder(sink, frame=frame):
        page = opened(browser, sink.url)
        assert np.abs(np.array(colours(page, "#video")) - np.array(PATCHES)).max() <= 8
        page.close()


def test_without_webrtc_the_page_says_so_and_shows_jpeg_pictures(
    browser: Chromium, panel: FakePanel
) -> None:
    with ViewSink(controls=panel, rtc=False) as sink, Feeder(sink):
        page = opened(browser, sink.url, "MJPEG")
        assert page.run("document.querySelector('#how').textContent") == "MJPEG, no WebRTC in this view"
        page.run("window.first = code(grab('#still'))")
        page.until("code(grab('#still')) !== window.first")
        page.close()


def test_a_webrtc_that_fails_falls_back_and_is_tried_again(browser: Chromium, view: ViewSink) -> None:
    # The half minute until it is tried again is over when the test says so.
    held = (
        "const later = setTimeout; window.held = [];"
        "setTimeout = (f, t) => t >= 30000 ? window.held.push(f) : later(f, t);"
    )
    page = opened(browser, view.url, before=held)
    # No packet arrives any more, as behind a firewall that changed its mind.
    page.run("document.querySelector('#video').srcObject.getTracks()[0].stop()")
    page.until("document.querySelector('#how').textContent === 'MJPEG, WebRTC stood still'", 15)
    page.until("!document.querySelector('#still').hidden")
    page.run("window.first = code(grab('#still'))")
    page.until("code(grab('#still')) !== window.first")
    again = "held.splice(0).forEach(f => f())"
    page.until(again + " || document.querySelector('#how').textContent === 'WebRTC, H.264'")
    page.run("window.first = code(grab('#video'))")
    page.until("code(grab('#video')) !== window.first")
    page.close()


def test_a_source_that_stands_still_or_changes_its_size_is_shown(
    browser: Chromium, panel: FakePanel
) -> None:
    with ViewSink(controls=panel) as sink:
        sink.write(showing.patches())
        page = opened(browser, sink.url)
        assert np.abs(np.array(colours(page, "#video")) - np.array(PATCHES)).max() <= 8
        page.until("document.querySelector('#condition').textContent.startsWith('No frames for')")
        with Feeder(sink, frame=showing.patches(WIDTH, HEIGHT * 2)):
            page.until("document.querySelector('#video').videoHeight === 360")
            page.until("document.querySelector('#size').textContent === '320 × 360'")
            x, y = page.run("(s => [s.clientWidth, s.clientHeight])(document.querySelector('#stage'))")
            assert abs(x / y - 320 / 360) < 0.02, "the picture is distorted"
            assert page.run("document.querySelector('#how').textContent").startswith("WebRTC")
        page.close()


def test_everything_works_by_keyboard(browser: Chromium, view: ViewSink, panel: FakePanel) -> None:
    page = opened(browser, view.url)
    focused = "document.activeElement.id"

    def tab_to(name: str) -> None:
        for _ in range(12):
            if page.run(focused) == name:
                outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid" or name == "split", f"the focus on {name} is not seen"
                return
            page.press("Tab")
        raise AssertionError(f"Tab does not reach {name}, but {page.run(focused)}")

    tab_to("model")
    page.press("ArrowLeft")
    becomes(page, panel, "models", ("the-scream",))
    assert panel.swapped == [("the-scream",)]
    page.until("document.querySelector('#notice').textContent === 'Changed to the-scream'")
    tab_to("strength")
    page.press("ArrowLeft", 3)
    becomes(page, panel, "strength", 0.97)
    assert page.run("document.querySelector('#strength-value').textContent") == "97 %"
    tab_to("on")
    page.press(" ")
    becomes(page, panel, "off", True)
    page.until("document.querySelector('#condition').dataset.state === 'off'")
    page.press("Enter")
    becomes(page, panel, "off", False)
    tab_to("compare")
    page.press(" ")
    becomes(page, panel, "split", 0.5)
    page.run("document.querySelector('#model').focus()")
    page.run("document.querySelector('h1').tabIndex = -1, document.querySelector('h1').focus()")
    tab_to("split")
    ring = "getComputedStyle(document.querySelector('#stage')).outlineStyle"
    assert page.run(ring) == "solid"
    page.press("ArrowRight", 4)
    becomes(page, panel, "split", 0.54)
    page.press("Home")
    becomes(page, panel, "split", 0.0)
    tab_to("record")
    page.press("Enter")
    page.until("document.querySelector('#record').ariaPressed === 'true'")
    assert panel.recording is not None
    page.until("document.querySelector('#notice').textContent.includes('recording-001.mkv')")
    page.press("Enter")
    page.until("document.querySelector('#record').ariaPressed === 'false'")
    becomes(page, panel, "recording", None)
    assert not page.complaints
    page.close()


def test_a_model_that_fails_to_open_is_told_and_the_choice_goes_back(
    browser: Chromium, view: ViewSink, panel: FakePanel
) -> None:
    def fail() -> None:
        raise SinkError("the-scream has no engine here")

    panel.during = fail
    page = opened(browser, view.url)
    page.run("document.querySelector('#model').focus()")
    page.press("ArrowLeft")
    page.until("document.querySelector('#notice').textContent === 'the-scream has no engine here'")
    page.until("document.querySelector('#model').value === 'wave'")
    assert page.run("document.querySelector('#notice').dataset.kind") == "error"
    page.close()


def test_the_line_stands_where_the_picture_is_parted_and_follows_the_mouse(
    browser: Chromium, view: ViewSink, panel: FakePanel
) -> None:
    page = opened(browser, view.url)
    page.click("#compare")
    becomes(page, panel, "split", 0.5)
    x, y, width, height = page.run(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('#stage').getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call(
            "Input.dispatchMouseEvent", type=kind, x=x + 0.25 * width, y=y + height / 2,
            button="left", clickCount=1,
        )  # fmt: skip
    page.until("document.querySelector('#split').value === '0.25'")
    becomes(page, panel, "split", 0.25)
    # A switch that is set elsewhere, by a key in a window, moves the page's.
    panel.split = 0.8
    page.until("document.querySelector('#split').value === '0.8'")
    panel.split = None
    page.until("document.querySelector('#parted').hidden")
    page.close()


def test_a_snapshot_is_a_png_of_the_whole_frame(
    browser: Chromium, view: ViewSink, tmp_path: Path
) -> None:
    page = opened(browser, view.url)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#snapshot")
    page.until("document.querySelector('#notice').textContent.startsWith('Saved')")
    name = page.run("document.querySelector('#notice').textContent").removeprefix("Saved ")
    page.until("true")
    for _ in range(100):
        if (tmp_path / name).exists():
            break
        page.run("new Promise(done => setTimeout(done, 30))")
    pixels = cv2.imread(str(tmp_path / name))
    assert pixels is not None
    assert pixels.shape == (362, 640, 3)
    assert np.abs(pixels[100, 80, ::-1].astype(int) - np.array(PATCHES[0])).max() <= 2
    page.close()


def test_the_figures_and_the_chart_are_shown(browser: Chromium, view: ViewSink) -> None:
    page = opened(browser, view.url)
    page.until("document.querySelector('#fps').textContent > '10'")
    assert page.run("document.querySelector('#dropped').textContent") == "4"
    assert page.run("document.querySelector('#late').textContent") == "5"
    assert (
        page.run("document.querySelector('#ladder [aria-current]').innerText") == "half size\n12.7 ms"
    )
    assert page.run("[...document.querySelectorAll('#events span')].map(e => e.textContent)") == [
        "half size: p99 was 41 ms", "wave is open",
    ]  # fmt: skip
    assert page.run("document.querySelector('#deadline').textContent") == "33.3 ms"
    # Pixels of the median's colour are in the chart: a line was drawn, not only its frame.
    page.until("""(canvas => {
      const wanted = [0x2c, 0x6b, 0x66];
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const like = (at) => wanted.every((value, part) => Math.abs(data[at + part] - value) < 12);
      let count = 0;
      for (let at = 0; at < data.length; at += 4) count += data[at + 3] > 200 && like(at);
      return count >= 3;
    })(document.querySelector("#chart"))""")
    label = page.run("document.querySelector('#chart').getAttribute('aria-label')")
    assert label.startswith("Latency: median ")
    page.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [(360, 740), (1280, 860)])
def test_it_fits_the_screen(
    browser: Chromium, view: ViewSink, size: tuple[int, int], dark: bool, tmp_path: Path
) -> None:
    page = opened(browser, view.url, width=size[0], height=size[1], dark=dark)
    page.click("#compare")
    page.until("!document.querySelector('#parted').hidden")
    wide = page.run("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= size[0] == wide[1], "it has to be scrolled sideways"
    narrow = page.run(
        "[...document.querySelectorAll('button, select')]"
        ".filter(e => e.getBoundingClientRect().height < 44).map(e => e.id)"
    )
    assert not narrow, "too small for a finger"
    cut = page.run(
        "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1"
        " && e.clientWidth && getComputedStyle(e).overflowX !== 'visible' && e.id !== 'stage')"
        ".map(e => e.id)"
    )
    assert not cut, "text is cut off"
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(22, 21, 19)") == dark
    target = Path(SCREENSHOTS or tmp_path) / f"view-{size[0]}-{'dark' if dark else 'light'}.png"
    page.screenshot(target, whole=True)
    pixels = cv2.imread(str(target))
    assert pixels is not None
    assert pixels.shape[1] == wide[0]
    page.close()


def test_every_control_has_a_name_that_is_read_out(browser: Chromium, view: ViewSink) -> None:
    page = opened(browser, view.url)
    page.click("#compare")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "switch", "slider", "combobox", "image", "listbox"}
    controls = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles
    ]
    assert {role for role, _ in controls} >= {"button", "switch", "slider", "combobox", "image"}
    assert all(name for _, name in controls), json.dumps(controls)
    page.close()


@pytest.mark.parametrize(("rtc", "how", "selector"), [
    (True, "WebRTC", "#video"), (False, "MJPEG", "#still")
])  # fmt: skip
def test_it_comes_back_when_another_run_does_and_is_opened(
    browser: Chromium, panel: FakePanel, rtc: bool, how: str, selector: str
) -> None:
    with ViewSink(controls=panel, rtc=rtc) as sink, Feeder(sink):
        port = int(sink.uri.rpartition(":")[2])
        page = opened(browser, sink.url, how)
    page.until("document.querySelector('#link').dataset.state === 'lost'")
    assert "The run has ended" in page.run("document.querySelector('#link').textContent")
    assert page.run("!document.querySelector('#curtain').hidden"), "a dead picture looks alive"
    assert page.run("document.querySelector('#record').disabled")
    assert page.run("document.querySelector('#condition').textContent") == "No connection"
    with ViewSink(controls=panel, port=port, rtc=rtc) as sink, Feeder(sink):
        # The other run has a token of its own.
        page.until("document.querySelector('#link').textContent.includes('needs its token')")
        assert "open the whole address" in page.run("document.querySelector('#curtain').textContent")
        browser.page(sink.url).close()
        page.until("document.querySelector('#link').dataset.state === 'open'")
        page.until(f"document.querySelector('#how').textContent.startsWith('{how}')")
        page.until("document.querySelector('#curtain').hidden")
        page.run(f"window.first = code(grab('{selector}'))")
        page.until(f"code(grab('{selector}')) !== window.first")
        page.close()


@pytest.mark.parametrize("token", [None, "a long enough token"])
def test_the_token_opens_the_page_and_leaves_the_address(
    browser: Chromium, panel: FakePanel, token: str | None
) -> None:
    with ViewSink(controls=panel, token=token) as sink, Feeder(sink):
        page = browser.page(sink.url.partition("?")[0])
        assert "needs its token" in page.run("document.body.textContent")
        page.close()
        page = opened(browser, sink.url)
        assert page.run("location.search") == ""
        assert page.run("document.cookie") == "", "scripts can read the cookie"
        page.call("Page.reload")
        page.until("document.querySelector('#link')?.dataset.state === 'open'")
        page.close()
