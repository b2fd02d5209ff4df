"""Headless Chromium over its debugging pipe: real input events, and a record of requests and errors."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

_SECONDS = 60


class Browser:
    """A page in headless Chromium; the test is skipped where Chromium is not installed.

    Attributes:
        requests: Addresses that the page asked for, without ``data:`` and ``blob:`` ones.
        errors: Errors and warnings on the console, exceptions, and violations of the page's policy.
    """

    def __init__(self, folder: Path, width: int = 1200, height: int = 900) -> None:
        found = shutil.which("chromium")
        if found is None:
            pytest.skip("chromium is not installed")
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number, self._rest = 0, b""
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        command = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", found, *options],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        os.close(their_in)
        os.close(their_out)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._session = None
        try:  # a killed browser leaves processes that still write into its folder
            self.call("Browser.close")
            self._process.wait(timeout=10)
        finally:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._log.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._in, 1 << 20)
            assert data, "chromium has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(text))

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests += [u for u in [about["request"]["url"]] if not u.startswith(("data:", "blob:"))]
        elif event["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"]))
        elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in {"error", "warning"}:
            self.errors.append(json.dumps(about["args"]))
        elif event["method"] == "Log.entryAdded" and about["entry"]["level"] in {"error", "warning"}:
            self.errors.append(json.dumps(about["entry"]))

    def open(self, file: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.requests.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _SECONDS
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def centre(self, selector: str) -> tuple[float, float]:
        """The centre of an element, scrolled into view."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return float(box[0]), float(box[1])

    def mouse(self, kind: str, x: float, y: float, **about: Any) -> None:
        """Send a mouse event: mousePressed, mouseMoved, mouseReleased, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **about)

    def click(self, selector: str) -> None:
        """Click the centre of an element."""
        x, y = self.centre(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", buttons=1, clickCount=1)

    def key(self, name: str) -> None:
        """Press and release a key, such as ``ArrowDown`` or ``2``."""
        text = {"text": name} if len(name) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def size(self, width: int, height: int, scale: float = 1.0) -> None:
        """Set the size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def picture(self, file: Path, height: int | None = None, top: int = 0) -> None:
        """Write the page, or its upper part, from ``top``, as a PNG or, by the name of the file, a JPEG."""
        box = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": box["width"], "height": height or box["height"], "scale": 1}
        kind: dict[str, Any] = {"format": "png"}
        if file.suffix == ".jpg":
            kind = {"format": "jpeg", "quality": 82}
        shot = self.call("Page.captureScreenshot", **kind, clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
