"""A headless Chromium that opens pages from disk and tells what they asked for and complained of."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from bids_cpmae.processes import ALLOCATOR

WINDOW = (1200, 1000)
INSIDE = ("data:", "blob:")
# drawing WebGL 2 without a graphics card: by SwiftShader
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--disable-dev-shm-usage", "--use-gl=angle",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--hide-scrollbars",
    "--disable-background-networking", "--no-first-run", f"--window-size={WINDOW[0]},{WINDOW[1]}",
    # on a busy machine the process that draws may be ended; without these, WebGL is refused from then on
    "--disable-gpu-watchdog", "--disable-gpu-process-crash-limit", "--disable-domain-blocking-for-3d-apis",
)  # fmt: skip


class Browser:
    """Chromium with its logs."""

    def __init__(self) -> None:
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        options = ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # what the command line sets for its own processes, SwiftShader does not draw with
        environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
        self.driver = Chrome(options=options, service=Service(shutil.which("chromedriver"), env=environment))
        self.driver.set_page_load_timeout(120)

    def open(self, path: Path) -> None:
        """Open a file; what earlier pages logged is forgotten."""
        self.complaints(), self.requests()
        self.driver.get(path.absolute().as_uri())

    def complaints(self) -> list[str]:
        """Lines of the console that are warnings or errors, since last asked."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses asked for outside the page itself, since last asked."""
        messages = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [address for address in sent if not address.startswith(INSIDE)]

    def run(self, script: str, *arguments):
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str):
        """Elements that fit a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Their text, shown or not."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)

    def wait(self, script: str, seconds: float = 60) -> None:
        """Until a script returns something true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"still not true after {seconds} s: {script}; {self.complaints()}"
            time.sleep(0.1)

    def picture(self, selector: str) -> np.ndarray:
        """An element as drawn (rows, columns, 3)."""
        from PIL import Image

        (element,) = self.find(selector)
        return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))

    def close(self) -> None:
        """End it."""
        self.driver.quit()


@pytest.fixture(scope="module")
def browser():
    """Chromium, or a skip."""
    pytest.importorskip("selenium", reason="selenium is not installed (pip install 'bids_cpmae[test]')")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no Chromium here (apt-get install chromium chromium-driver)")
    opened = Browser()
    yield opened
    opened.close()
