"""TensorBoard as a process, and the Gradients tab in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import Select

WAIT = 30.0
"""Seconds until something must be seen, on a busy machine."""


def chromium() -> tuple[str, str]:
    """Paths of Chromium and its driver. Skips where they are not installed, but fails in continuous integration."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        reason = "needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return browser, driver


@contextmanager
def tensorboard(logdir: Path, *words: str, prefix: str = "") -> Iterator[str]:
    """Address of a TensorBoard that has read ``logdir``."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port), *words]
    if prefix:
        command += ["--path_prefix", prefix]
    with open(logdir.parent / f"tensorboard-{port}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://localhost:{port}{prefix}/"
        until(lambda: _answers(f"{address}data/plugin/gradwatch/runs"), f"{address} with runs")
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address) as answer:
            return b'"name"' in answer.read()
    except (urllib.error.URLError, ConnectionError):
        return False


def until(true: Any, what: str) -> Any:
    """What ``true()`` gives once that is something."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {WAIT:.0f} s: {what}")


CSP = "Content Security Policy"


class Tab:
    """The Gradients tab as a reader sees it."""

    def __init__(self, width: int = 1400, height: int = 1000) -> None:
        browser, driver = chromium()
        options = Options()
        options.binary_location = browser
        for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars"):
            options.add_argument(f"--{word}")
        options.add_argument(f"--window-size={width},{height}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_page_load_timeout(WAIT)

    def open(self, address: str, **state: object) -> None:
        """Open the tab with a state in the address, and wait until it is drawn."""
        ours = "".join(f"&p.gradwatch.{name}={quote(str(value), safe='')}" for name, value in state.items())
        self.driver.get("about:blank")  # else only the part behind # changes, and nothing is loaded
        self.driver.get(f"{address}#gradwatch{ours}")
        if not address.startswith("file:"):
            until(lambda: self.driver.find_elements("css selector", "iframe"), "the tab's frame")
            self.driver.switch_to.frame(self.driver.find_element("css selector", "iframe"))
        until(self.drawn, "a drawing")

    def drawn(self) -> int:
        """How often everything was drawn."""
        return int(self.js("return document.querySelector('main')?.dataset.drawn ?? 0"))

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def outside(self, script: str) -> Any:
        """Run a script in TensorBoard's own page, around the frame."""
        return self.js(f"return (function () {{ {script} }}).call(window.parent)")

    @contextmanager
    def redraws(self) -> Iterator[None]:
        """What is done inside changes the picture; waits until it has."""
        before = self.drawn()
        yield
        until(lambda: self.drawn() > before, "another drawing")

    def hash(self) -> str:
        return str(self.js("return window.parent.location.hash"))

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def texts(self, selector: str) -> list[str]:
        return list(self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector))

    def trace(self, name: str, plot: str = "timeline-0") -> dict[str, Any]:
        """A trace as plotly has it: numbers as lists, NaN as None."""
        found = self.js(
            """const plain = (v) => ArrayBuffer.isView(v) || Array.isArray(v) ? Array.from(v, plain)
                 : Number.isNaN(v) ? null : v;
               const trace = document.getElementById(arguments[0]).data.find((t) => t.name === arguments[1]);
               if (!trace) return null;
               const {x, y, z, marker} = trace;
               return {x: plain(x), y: plain(y), z: plain(z), symbol: marker?.symbol ?? null};""",
            plot,
            name,
        )
        assert found is not None, f"no trace {name!r} in {plot}"
        return dict(found)

    def place(self, step: float, row: float, plot: str = "timeline-0") -> tuple[int, int]:
        """Where a cell of the heatmap is in the window, in px."""
        x, y = self.js(
            """const plot = document.getElementById(arguments[0]), {xaxis, yaxis2} = plot._fullLayout;
               plot.scrollIntoView({block: 'center'});
               const box = plot.getBoundingClientRect(), frame = window.frameElement?.getBoundingClientRect();
               return [(frame?.left ?? 0) + box.left + xaxis._offset + xaxis.l2p(arguments[1]),
                       (frame?.top ?? 0) + box.top + yaxis2._offset + yaxis2.l2p(arguments[2])];""",
            plot,
            step,
            row,
        )
        return round(x), round(y)

    def click(self, step: float, row: float, plot: str = "timeline-0") -> None:
        x, y = self.place(step, row, plot)
        self._mouse().w3c_actions.pointer_action.move_to_location(x - 2, y).move_to_location(x, y).click()
        self._actions.perform()

    def drag(self, first: float, last: float, row: float) -> None:
        """Drag over the heatmap from one step to another."""
        (x, y), (to, _) = self.place(first, row), self.place(last, row)
        pointer = self._mouse().w3c_actions.pointer_action
        pointer.move_to_location(x, y).pointer_down().move_to_location((x + to) // 2, y).move_to_location(
            to, y
        ).pointer_up()
        self._actions.perform()

    def double_click(self, step: float, row: float) -> None:
        x, y = self.place(step, row)
        self._mouse().w3c_actions.pointer_action.move_to_location(x, y).double_click()
        self._actions.perform()

    def choose(self, name: str, value: str) -> None:
        """Choose an option of a list."""
        Select(self.driver.find_element("id", name)).select_by_value(value)

    def type(self, name: str, text: str) -> None:
        """Write into an empty field."""
        field = self.driver.find_element("id", name)
        field.clear()
        field.send_keys(text)

    def press(self, key: str) -> None:
        """Press a key on the time line."""
        self.driver.find_element("id", "timeline-0").send_keys(key)

    def complaints(self) -> list[str]:
        """Errors in the console, and what the content security policy refused.

        But for fonts of TensorBoard's own page, which it does not find behind a path prefix.
        """
        said = [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE" or CSP in e["message"]]
        return [message for message in said if "/font-roboto/" not in message]

    def close(self) -> None:
        self.driver.quit()

    def _mouse(self) -> ActionChains:
        self._actions = ActionChains(self.driver, duration=60)
        return self._actions
