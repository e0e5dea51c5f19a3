"""A headless Chromium, told what to do over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--hide-scrollbars", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
_PATIENCE_S = 120.0
_PHONE = 600  # pixels; a narrower window is a phone with a touch screen


def chromium_path() -> str | None:
    """The browser of this machine, if it has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A browser with one page.

    Attributes:
        complaints: Exceptions of scripts and errors on the console, since the page was opened.
    """

    def __init__(self, path: str, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        # The browser reads commands from descriptor 3 and answers on descriptor 4.
        commands, answers = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1]))
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = ours[1], theirs[0]

        def wire() -> None:
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        command = [path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with open(os.devnull, "w") as nowhere:
            self._process = subprocess.Popen(
                command, close_fds=False, preexec_fn=wire, stdout=nowhere, stderr=nowhere
            )
        os.close(commands)
        os.close(answers)
        self._number, self._buffer, self._session = 0, b"", ""
        self.complaints: list[str] = []
        (page,) = [one for one in self.do("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.do("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.do(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)  # without its master the browser ends
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._notice(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0.0))
            block = os.read(self._read, 1 << 20) if ready else b""
            if not block:
                raise RuntimeError("the browser does not answer")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _notice(self, event: dict[str, Any]) -> None:
        found = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(found["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and found["type"] in ("error", "assert"):
            self.complaints.append(json.dumps(found["args"]))
        elif event.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.complaints.append(found["entry"]["text"])

    def open(self, file: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Show a page in a window, as a phone would when it is narrow, and wait until it is drawn."""
        self.complaints = []
        self.look(width=width, height=height, dark=dark)
        self.do("Page.navigate", url=file.resolve().as_uri())
        self.value(
            "new Promise(done => document.readyState === 'complete' ? done() "
            ": addEventListener('load', done))"
        )
        self.settle()

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Be another screen, as a phone when it is narrow, for the page that is open."""
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features |= {"hover": "none", "pointer": "coarse"} if width < _PHONE else {"hover": "hover"}
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.do("Emulation.setEmulatedMedia", features=media)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < _PHONE}
        self.do("Emulation.setDeviceMetricsOverride", **size)
        self.do("Emulation.setTouchEmulationEnabled", enabled=width < _PHONE)
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 500)))")

    def value(self, expression: str) -> Any:
        """What a script comes to, also one that has to be waited for."""
        found = self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def picture(self, file: Path) -> None:
        """Keep the whole page as PNG."""
        shot = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
