"""Make the pictures of the README: run the demo, open it in TensorBoard, take screenshots in headless Chromium.

    python docs/screenshots.py

Needs the extra gradwatch[demo] and Chromium (Debian: packages chromium).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
BIN = Path(sys.executable).parent
BOTH = "#gradwatch&p.gradwatch.run=sigmoid&p.gradwatch.other=relu_he"
PAGES = {
    "gradients": (BOTH, (0, 66, 1500, 1086)),
    "gradients_dark": (f"?darkMode=true{BOTH}", (0, 66, 1500, 1600)),
    "histograms": ("#histograms&tagFilter=fc%5B159%5D%24", (330, 110, 1470, 700)),
    "text": ("#text", (330, 110, 1480, 640)),
}
"""What follows the address of TensorBoard, and what is kept of a window of 1500 x 1600: left, top, right, bottom."""


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium on the PATH")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([BIN / "gradwatch", "demo", "vanishing", "--logdir", directory], check=True)
        port = free_port()
        words = [sys.executable, "-m", "tensorboard.main", "--logdir", f"{directory}/vanishing", "--port", str(port)]
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = f"http://localhost:{port}/"
            wait_for(address)
            time.sleep(10)  # until the event files are read
            for name, (page, box) in PAGES.items():
                screenshot(chromium, f"{address}{page}", IMAGES / f"{name}.png", box)
        finally:
            server.terminate()
            server.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(address: str, seconds: float = 60) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address).close()
            return
        except urllib.error.URLError:
            time.sleep(0.5)
    sys.exit(f"{address} did not answer within {seconds:.0f} s")


def screenshot(chromium: str, address: str, path: Path, box: tuple[int, int, int, int]) -> None:
    """Save the part ``box`` of the page as it looks 20 s (of its own time) after it was opened."""
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                *quiet,
                f"--user-data-dir={profile}",
                "--window-size=1500,1600",
                "--virtual-time-budget=20000",
                f"--screenshot={path}",
                address,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
            timeout=180,
        )
    Image.open(path).crop(box).convert("RGB").save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
