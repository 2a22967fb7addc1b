"""A headless Chromium, driven by the DevTools protocol over its WebSocket."""

import asyncio
import base64
import itertools
import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--remote-debugging-port=0",
)
PATIENCE = 20.0
"""Seconds that the browser has to start or to answer."""
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, " ": 32, "Enter": 13}


def found() -> str | None:
    """Where a browser is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One browser; `page` opens a tab. To be used in a `with` statement."""

    def __init__(self, *switches: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="velatura-chromium-"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        program = found()
        assert program is not None
        self._process = subprocess.Popen(
            [program, *SWITCHES, *switches, f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._session = self.wait(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine comes to, in the loop of the connections."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE * 2)

    def page(
        self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False, before: str = ""
    ) -> "Page":
        """Open a tab; the script `before` is run before the page's own."""
        socket = self.wait(self._new_tab())
        return Page(self, socket, url, width=width, height=height, dark=dark, before=before)

    async def _new_tab(self) -> aiohttp.ClientWebSocketResponse:
        end, file = time.monotonic() + PATIENCE, self._folder / "DevToolsActivePort"
        while not file.exists() or not file.read_text():
            assert time.monotonic() < end, "the browser did not start"
            await asyncio.sleep(0.05)
        port = file.read_text().split()[0]
        async with self._session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
            target = await answer.json()
        return await self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait(self._session.close())
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Page:
    """A tab."""

    def __init__(
        self,
        browser: Chromium,
        socket: aiohttp.ClientWebSocketResponse,
        url: str,
        *,
        width: int,
        height: int,
        dark: bool,
        before: str,
    ) -> None:
        self._browser, self._socket = browser, socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        """Errors of the page's console: a refused resource, an exception that nobody caught."""
        self._reading = asyncio.run_coroutine_threadsafe(self._read(), browser._loop)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol."""
        return self._browser.wait(self._call(method, params))

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(future, PATIENCE)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def _read(self) -> None:
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._waiting.pop(found["id"]).set_result(found)
            elif found["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(found["params"]["exceptionDetails"]))
            elif found["method"] == "Log.entryAdded" and found["params"]["entry"]["level"] == "error":
                self.complaints.append(json.dumps(found["params"]["entry"]))

    def run(self, script: str) -> Any:
        """The value of an expression, or what its promise comes to."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def press(self, key: str, times: int = 1) -> None:
        """Strike a key where the focus is."""
        fields: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key}
        fields |= {"windowsVirtualKeyCode": KEYS[key]}
        if key in " \r" or key == "Enter":
            fields |= {"text": " " if key == " " else "\r"}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **fields)
            fields.pop("text", None)
            self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        self.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        box = f"document.querySelector('{selector}').getBoundingClientRect()"
        x, y = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int) -> None:
        """As on a screen of this size; a narrow one counts as a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """As PNG; `whole` also shows what one has to scroll to."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """Close the tab."""
        self.call("Page.close")
        self._browser.wait(self._socket.close())
        self._reading.result(PATIENCE)
