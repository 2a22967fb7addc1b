"""The studio in a real browser: clicked through a whole job, reloaded in the middle, in two tabs."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from velatura.runtime.resume.journal import frames_left
from velatura.runtime.studio.server import Studio

from .. import videos
from ..live.chromium import Chromium, Page, found
from .desk import Desk, told, until

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium here")

SCREENSHOTS = os.environ.get("VELATURA_SCREENSHOTS")
"""A folder in which the pictures that the tests take are kept, to be looked at."""
PATIENCE = 90.0
CHECKED = "document.querySelector('.render-state').textContent.includes('checks hold')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "videos"
    inside.mkdir()
    videos.make(inside / "clip.mp4", codec="libx264", size=(96, 64), frames=40, tone=True, seconds=1.6)
    (inside / "broken.mp4").write_bytes(b"no video at all" * 100)
    return inside


@pytest.fixture
def studio(tmp_path: Path, folder: Path) -> Iterator[Studio]:
    running = Studio(tmp_path / "workspace", folder=folder)
    yield running
    running.close()


def connected(browser: Chromium, url: str) -> Page:
    page = browser.page(url)
    page.run("window.confirm = () => true")
    page.until("document.querySelector('#link').dataset.state === 'open'")
    return page


def take(page: Page, name: str) -> None:
    """Take a video from the folder."""
    page.run("document.querySelector('#browser').open || document.querySelector('#browse').click()")
    entry = (
        f"[...document.querySelectorAll('.entries button')].find(b => b.textContent.includes('{name}'))"
    )
    page.until(f"!!{entry}")
    page.run(f"{entry}.click()")


def pick(page: Page, path: Path) -> None:
    """Pick a file of this machine, which is uploaded."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def press(page: Page, text: str) -> None:
    """A button of the first render of the queue."""
    button = (
        f"[...document.querySelectorAll('.render .buttons > *')].find(b => b.textContent === '{text}')"
    )
    page.until(f"!!{button}", PATIENCE)
    page.run(f"{button}.click()")


def in_state(page: Page, state: str) -> None:
    page.until(f"!!document.querySelector('.render[data-state={state}]')", PATIENCE)


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(Path(SCREENSHOTS) / f"{name}.png", whole=True)


def test_a_whole_job_is_clicked_through_and_a_reload_in_its_middle_loses_nothing(
    browser: Chromium, studio: Studio, folder: Path
) -> None:
    page = connected(browser, studio.url)
    assert "token" not in page.run("location.href")
    assert page.run("!document.querySelector('#empty').hidden")

    take(page, "broken.mp4")
    page.until("document.querySelector('#browser-notice').textContent.includes('broken.mp4 cannot be')")
    assert len(page.complaints) == 1  # the refusal, which a browser notes by itself
    page.complaints.clear()
    page.run("document.querySelector('#browser [data-close]').click()")
    pick(page, folder / "clip.mp4")
    page.until("!document.querySelector('#before').hidden", PATIENCE)
    assert page.run("document.querySelector('#before').naturalWidth") == 96
    assert [(film["name"], film["own"]) for film in told(studio)["films"]] == [("clip.mp4", True)]

    # By the keyboard: the cards are radio buttons.
    page.run("document.querySelector('input[name=upscale]').focus()")
    page.press("ArrowRight")
    page.until("!document.querySelector('#after').hidden", PATIENCE)
    assert page.run("document.querySelector('input[name=upscale]:checked').value") == "upscale-2x"
    assert page.run("document.querySelector('#after').naturalWidth") == 192
    card = "document.querySelector('.thumb img[data-model=upscale-2x]')"
    page.until(f"!{card}.hidden && {card}.naturalWidth > 0", PATIENCE)
    page.run("document.querySelector('#split').focus()")
    page.press("ArrowLeft", 5)
    assert (
        page.run("getComputedStyle(document.querySelector('#stage')).getPropertyValue('--at')") == "45%"
    )
    first = page.run("document.querySelector('#before').src")
    page.run("document.querySelector('#time').focus()")
    page.press("End")
    page.until(f"document.querySelector('#before').src !== '{first}'", PATIENCE)
    last = page.run("document.querySelector('#time').valueAsNumber")
    page.press("ArrowLeft")
    assert last - page.run("document.querySelector('#time').valueAsNumber") == pytest.approx(
        0.04, abs=1e-3
    )

    # Sharp is another model of the same size.
    page.click("input[name=tone][value=sharp]")
    assert page.run("document.querySelector('input[name=upscale]:checked').value") == "upscale-2x-sharp"
    page.click("input[name=tone][value=faithful]")
    page.click("input[name=quality][value=draft]")
    page.run("document.querySelector('#start').click()")
    page.until("!!document.querySelector('.render')")
    press(page, "Pause")
    in_state(page, "paused")
    picture(page, "paused")

    page.call("Page.reload")
    page.until("document.readyState === 'complete' && !!document.querySelector('.render')")
    page.run("window.confirm = () => true")
    in_state(page, "paused")
    page.until("!document.querySelector('#before').hidden", PATIENCE)
    press(page, "Resume")
    in_state(page, "done")
    page.until(CHECKED, PATIENCE)
    picture(page, "done")

    press(page, "View")
    page.until("document.querySelector('#result').open")
    page.until("document.querySelectorAll('#checks tr').length > 5")
    # What this browser cannot play, it shows as frames.
    page.until(
        "document.querySelector('#video-after').readyState > 1"
        " || document.querySelector('#still-after').naturalWidth > 0",
        PATIENCE,
    )
    address = page.run("document.querySelector('#download').href")
    length = page.run(f"fetch('{address}').then(a => a.blob()).then(b => b.size)")
    output = Path(told(studio)["renders"][0]["output"])
    assert length == output.stat().st_size
    picture(page, "result")
    page.run("document.querySelector('#result [data-close]').click()")
    press(page, "Remove")
    page.until("!document.querySelector('.render')", PATIENCE)
    assert not output.exists()
    assert not page.complaints, page.complaints
    page.close()


def test_every_control_has_a_name_and_a_phone_has_no_scroll_bar_across(
    browser: Chromium, studio: Studio
) -> None:
    page = connected(browser, studio.url)
    take(page, "clip.mp4")
    page.until("!document.querySelector('#before').hidden", PATIENCE)
    page.until("document.querySelectorAll('.model').length > 6", PATIENCE)
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "radio", "checkbox", "combobox", "spinbutton", "link", "progressbar"}
    nameless = [
        node["role"]["value"] for node in tree
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
        and not node.get("name", {}).get("value")
    ]  # fmt: skip
    assert nameless == []
    page.resize(360, 720)
    page.run("document.querySelector('details').open = true")
    assert page.run("document.documentElement.scrollWidth") <= 360
    small = page.run(
        "[...document.querySelectorAll('main button')].filter(b => b.offsetParent"
        " && b.getBoundingClientRect().height < 32).length"
    )
    assert small == 0
    page.close()


@pytest.mark.soak
def test_two_tabs_show_one_queue(browser: Chromium, studio: Studio) -> None:
    desk = Desk(studio.url)
    film = desk.ask("POST", "/api/films", {"path": "clip.mp4"})["id"]
    one, two = connected(browser, studio.url), connected(browser, studio.url)
    choices = {"models": ["upscale-2x"], "quality": "draft"}
    desk.ask("POST", "/api/renders", {"film": film, "choices": choices})
    press(one, "Pause")
    in_state(two, "paused")
    press(two, "Resume")
    in_state(one, "done")
    in_state(two, "done")
    press(one, "Remove")
    two.until("!document.querySelector('.render')", PATIENCE)
    assert not one.complaints
    assert not two.complaints
    one.close()
    two.close()


def served(workspace: Path, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """A studio in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "velatura.runtime", "studio", "--workspace", str(workspace),
         "--port", str(port)],
        stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def children(id: str) -> list[int]:
    """Processes that make a render."""
    mine: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"velatura.runtime.studio.child" in words and id.encode() in words:
            mine.append(int(path.parent.name))
    return mine


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_studio_that_is_killed_goes_on_where_it_was(browser: Chromium, tmp_path: Path) -> None:
    film = videos.make(
        tmp_path / "long.mp4", codec="libx264", size=(96, 64), frames=800, tone=True, seconds=32.0
    )
    workspace = tmp_path / "workspace"
    process, url = served(workspace)
    try:
        desk = Desk(url)
        id = desk.upload(film)["id"]
        choices = {"models": ["upscale-2x"], "quality": "draft"}
        render = desk.ask("POST", "/api/renders", {"film": id, "choices": choices})["id"]
        page = connected(browser, url)
        output = workspace / "renders" / render / "long-upscale-2x.mp4"
        until(lambda: frames_left(output) >= 250)
        process.send_signal(signal.SIGKILL)
        process.wait()
        page.until("document.querySelector('#link').dataset.state === 'lost'")
        until(lambda: not children(render))
        kept = frames_left(output)
        assert 250 <= kept < 800

        # A crash of the render's own process takes the page with it as little.
        process, url = served(workspace, int(re.findall(r":(\d+)/", url)[0]))
        page.until("document.querySelector('#link').textContent.includes('token')")
        page.call("Page.navigate", url=url)
        page.until("!!document.querySelector('.render[data-state=running]')", PATIENCE)
        for child in until(lambda: children(render)):
            os.kill(child, signal.SIGKILL)
        in_state(page, "failed")
        assert "memory" in page.run("document.querySelector('.render .notice').textContent")
        press(page, "Try again")
        in_state(page, "done")
        page.until(
            "document.querySelector('.render-state').textContent.includes('checks hold')", PATIENCE
        )
        made = videos.read(output)
        assert (made.width, len(made.luma)) == (192, 800)
        page.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_an_idle_page_costs_nothing(browser: Chromium, tmp_path: Path) -> None:
    process, url = served(tmp_path)
    try:
        page = connected(browser, url)
        page.until("document.querySelectorAll('.model').length > 6", PATIENCE)

        def ticks() -> int:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(1)
        before = ticks()
        time.sleep(10)
        assert (ticks() - before) / os.sysconf("SC_CLK_TCK") < 0.1  # of one core's ten seconds
        page.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0
