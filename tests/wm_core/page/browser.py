"""A real browser without a window: Chromium, told what to do through a pipe of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--no-default-browser-check", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)


class Browser:
    """One tab; a context manager that leaves no process and no file."""

    def __init__(self, path: str) -> None:
        self._home = tempfile.mkdtemp(prefix="browser-")
        (from_us, self._out), (self._in, to_us) = os.pipe(), os.pipe()

        def place() -> None:  # the browser reads from 3 and writes to 4
            a, b = os.dup(from_us), os.dup(to_us)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self._process = subprocess.Popen(
            [path, *_OPTIONS, f"--user-data-dir={self._home}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            close_fds=False,
        )
        os.close(from_us)
        os.close(to_us)
        self._id, self._rest, self._session = 0, b"", None
        self.requests: list[str] = []  #: addresses that the tab asked for
        self.complaints: list[str] = []  #: errors of scripts and of the content policy
        self._session = self._attach()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._home, ignore_errors=True)

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)

    def size(self, width: int, height: int, *, dark: bool = False, scale: int = 1) -> None:
        """Make the window so many pixels wide and high."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        value = "dark" if dark else "light"
        media = [{"name": "prefers-color-scheme", "value": value}]
        self.call("Emulation.setEmulatedMedia", features=media)

    def run(self, script: str) -> object:
        """The value of a script."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, script: str, timeout_s: float = 60.0) -> object:
        """Wait until a script gives something true."""
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                value = self.run(script)
            except AssertionError as error:  # the page is being replaced
                value = None
                if time.monotonic() > end_s:
                    raise AssertionError(script) from error
            if value:
                return value
            if time.monotonic() > end_s:
                text = self.run("document.body.innerText")
                raise AssertionError(f"{script} stayed {value!r}; the page says {text!r}")
            time.sleep(0.05)

    def text(self, place: str = "body") -> str:
        """What one reads in the first element that fits."""
        return str(self.run(f"document.querySelector({json.dumps(place)})?.innerText ?? ''"))

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page, of all of it or of the window."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, **params: object) -> dict:
        """Send a command of the browser's protocol, and wait for its answer."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") == self._id:
                if "error" in said:
                    raise AssertionError(f"{method}: {said['error']}")
                return said["result"]
            self._note(said)

    def _attach(self) -> str:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        return self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 16)
            if not data:
                raise AssertionError("the browser has ended")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _note(self, said: dict) -> None:
        params = said.get("params", {})
        if said["method"] == "Network.requestWillBeSent":
            if not (url := params["request"]["url"]).startswith("data:"):
                self.requests.append(url)
        elif said["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif said["method"] == "Log.entryAdded" and params["entry"]["source"] in (
            "security",
            "violation",
        ):
            self.complaints.append(params["entry"]["text"])


@contextlib.contextmanager
def opened_browser() -> Iterator[Browser]:
    """Open a Chromium of this machine; the test is skipped where there is none."""
    path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is here: apt-get install chromium")
    with Browser(path) as found:
        yield found
