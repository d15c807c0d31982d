"""How long the Gradients tab takes as its reader sees it: in Chromium, on a log of benchmarks.tab.

    python -m benchmarks.tab_in_browser --sizes 300x100000 3000x5000

Seconds from the beginning of the tab's frame until all is drawn, when TensorBoard has read the log and nobody has asked
for the run before; then from a zoom, a click and a key until all is drawn. Needs chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import urllib.request
from pathlib import Path

from benchmarks.tab import FIRST, ZOOM, write
from tests.tensorboard_plugin.browser import Tab, tensorboard, until

REPEATS = 5

ZOOM_SCRIPT = """
const [plot, lo, hi, done] = arguments, main = document.querySelector('main'), before = main.dataset.drawn;
const begun = performance.now();
new MutationObserver((_, observer) => {
  if (main.dataset.drawn === before) return;
  observer.disconnect();
  done((performance.now() - begun) / 1000);
}).observe(main, {attributes: true});
window.Plotly.relayout(document.getElementById(plot), {'xaxis.range[0]': lo, 'xaxis.range[1]': hi});
"""

ANSWER_SCRIPT = """
const {duration} = performance.getEntriesByType('resource').find(({name}) => name.includes('overview'));
return duration / 1000;
"""


def _last(address: str) -> int:
    with urllib.request.urlopen(f"{address}data/plugin/gradwatch/runs") as answer:
        return int(json.load(answer)["runs"][0]["last"])


def measure(directory: Path, layers: int, steps: int) -> dict[str, float]:
    """Seconds of each, the median of several but for the first."""
    write(directory / "logs" / "run", layers, steps)
    tab = Tab()
    try:
        with tensorboard(directory / "logs") as address:
            until(lambda: _last(address) == steps - 1, "the whole log")
            tab.open(address)
            found = {"first": tab.js("return performance.now() / 1000"), "server": tab.js(ANSWER_SCRIPT)}
            again = []
            for _ in range(REPEATS):
                tab.open(address)
                again.append(tab.js("return performance.now() / 1000"))
            found["again"] = statistics.median(again)
            width = steps // 20
            zooms = [
                tab.driver.execute_async_script(ZOOM_SCRIPT, "timeline-0", lo, lo + width)
                for lo in range(width, (REPEATS + 1) * width, width)
            ]
            found["zoom"] = statistics.median(zooms)
            return found
    finally:
        tab.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", metavar="LAYERSxSTEPS", default=["300x100000", "3000x5000"])
    for size in parser.parse_args().sizes:
        layers, steps = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as directory:
            found = measure(Path(directory), layers, steps)
        first = (
            f"first picture {found['first']:.2f} s (goal {FIRST:g}), {found['server']:.2f} s of it the server's answer"
        )
        zoom = f"zoom {found['zoom']:.2f} s (goal {ZOOM:g})"
        print(f"{layers} layers x {steps} steps: {first}; again {found['again']:.2f} s; {zoom}")


if __name__ == "__main__":
    main()
