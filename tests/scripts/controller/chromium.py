# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive a headless Chromium by its DevTools protocol over a pipe.

It has no certificate: a relay on this host adds one, byte for byte.
"""

import asyncio
import base64
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

PROGRAM = shutil.which("chromium") or ""
TIMEOUT = 30.0                  # s for anything
OPTIONS = ("--headless=new", "--no-sandbox", "--remote-debugging-pipe",
           "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
           "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--disable-extensions", "--no-proxy-server",
           "--force-device-scale-factor=1", "--hide-scrollbars", "about:blank")


class BrowserSaid(Exception):
    """What Chromium or the page has to say against it."""


class Chromium:
    """One browser with one page; use as a context."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="wsm-chromium-")
        hears, self._tell = os.pipe()
        self._told, says = os.pipe()
        with open(Path(self.folder) / "log", "wb") as log:
            # pylint: disable-next=consider-using-with
            self._process = subprocess.Popen(
                ["bash", "-c", f'exec "$@" 3<&{hears} 4>&{says}', "bash",
                 PROGRAM, f"--user-data-dir={self.folder}/profile", *OPTIONS],
                pass_fds=(hears, says), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**os.environ, "HOME": self.folder})
        os.close(hears)
        os.close(says)
        self._number = 0
        self._rest = b""
        self._session: Optional[str] = None
        self.complaints: list[str] = []     # of the page: errors, refusals

    def __enter__(self) -> "Chromium":
        target = self.call("Target.createTarget", url="about:blank")
        self._session = self.call("Target.attachToTarget", flatten=True,
                                  targetId=target["targetId"])["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._tell)            # then it ends
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._told)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Protocol

    def _message(self) -> Any:
        while b"\0" not in self._rest:
            part = os.read(self._told, 1 << 16)
            if not part:
                log = (Path(self.folder) / "log").read_text("utf-8", "replace")
                raise BrowserSaid(f"Chromium has ended: {log[-2000:]}")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def call(self, method: str, **params: Any) -> Any:
        """Let it do something; return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._tell, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                if "error" in found:
                    raise BrowserSaid(f"{method}: {found['error']}")
                return found["result"]
            self._heard(found)

    def _heard(self, found: Any) -> None:
        params = found.get("params", {})
        if found.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif found.get("method") == "Log.entryAdded" and (
                params["entry"]["level"] == "error"):
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    # What a person does

    def open(self, url: str, scripts: bool = True) -> None:
        """Go to a page, with or without JavaScript."""
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        found = self.call("Page.navigate", url=url)
        if "errorText" in found:
            raise BrowserSaid(f"{url}: {found['errorText']}")
        self.wait("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """Return what an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=script,
                          awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserSaid(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until an expression is true; return it."""
        end = time.monotonic() + TIMEOUT
        while not (found := self.value(script)):
            if time.monotonic() > end:
                raise BrowserSaid(f"never: {script}; {self.complaints}; "
                                  + self.text("body")[:3000])
            time.sleep(0.05)
        return found

    def text(self, selector: str) -> str:
        """Return what can be read in an element; "" if it is not there."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})"
                              "?.innerText || ''"))

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        words = json.dumps(selector)
        self.wait(f"!!document.querySelector({words})")
        x, y = self.value(
            f"(() => {{ const it = document.querySelector({words}); "
            "it.scrollIntoView({block: 'center'}); "
            "const at = it.getBoundingClientRect(); "
            "return [at.x + at.width / 2, at.y + at.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y,
                      button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key, such as Tab or Enter."""
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39,
                "ArrowDown": 40}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code,
                      **(text if kind == "keyDown" else {}))

    def size(self, width: int, height: int) -> None:
        """Be a screen of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width,
                  height=height, deviceScaleFactor=1, mobile=False)

    def picture(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot",
                                          format="png")["data"])


async def relay(port: int, context: ssl.SSLContext) -> asyncio.Server:
    """Serve without TLS on this host what @port serves to a certificate."""
    async def pump(reader: asyncio.StreamReader,
                   writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(1 << 16):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0)
