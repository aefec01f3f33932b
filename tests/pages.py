"""What a page links to, what a browser would load with it, and what it makes of it."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.fresh_process import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
"""Where `npm install --no-save axe-core` puts it."""


def _in_chromium(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What Chromium, with its profile in a folder, makes of a page."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def opened(page: Path, folder: Path, *options: str) -> Any:
    """What a page says of itself: the JSON between FOUND and END in its body.

    Args:
        page: The page; it may load files beside it.
        folder: For Chromium's profile.
        *options: More of Chromium's.
    """
    reading = ("--dump-dom", "--enable-logging=stderr", "--virtual-time-budget=60000")
    done = _in_chromium(page, folder, *reading, "--allow-file-access-from-files", *options)
    assert "CONSOLE" not in done.stderr, done.stderr
    (text,) = re.findall(r"<body>FOUND(.*)END", html.unescape(done.stdout), re.DOTALL)
    return json.loads(text)


def print_page(page: Path, pdf: Path) -> None:
    """Print a page into a PDF; the profile of Chromium stands beside it."""
    _in_chromium(page, pdf.parent, f"--print-to-pdf={pdf}").check_returncode()


# Each page in a frame of its own; it has axe-core in it, and says what that finds.
FRAMES = """<!doctype html><body>FRAMES<script>
const found = {};
addEventListener("message", ({data}) => {
  found[data.name] = data.said;
  if (Object.keys(found).length === COUNT)
    document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
});</script>"""

ASKS = """<script src="AXE"></script><script>addEventListener("load", async () => {
  const {violations} = await axe.run(document, {resultTypes: ["violations"]});
  const said = violations.flatMap(v => v.nodes.map(n => `${v.id}: ${n.html.slice(0, 200)}`));
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) said.push("it scrolls sideways");
  if (matchMedia("(prefers-color-scheme: dark)").matches !== DARK) said.push("the wrong scheme");
  parent.postMessage({name: NAME, said}, "*");
});</script>"""


def complaints(pages: Iterable[Path], folder: Path, *, dark: bool, width: int) -> dict[str, Any]:
    """What axe-core (WCAG and its own good practice) has against pages, and sideways scrolling.

    Args:
        pages: The pages; a copy of each is written beside it.
        folder: For what is written besides.
        dark: Whether the reader prefers dark pages.
        width: Of the window, in CSS pixels.
    """
    frames = []
    for page in pages:
        asks = ASKS.replace("AXE", AXE.as_uri()).replace("DARK", str(dark).lower())
        asks = asks.replace("NAME", json.dumps(page.name))
        copy = page.with_name(f"asked-{page.name}")
        copy.write_text(page.read_text("utf-8").replace("</body>", f"{asks}</body>"), "utf-8")
        frames.append(f"<iframe width={width} height=800 src='{copy.as_uri()}'></iframe>")
    text = FRAMES.replace("FRAMES", "".join(frames)).replace("COUNT", str(len(frames)))
    (folder / "frames.html").write_text(text, encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    return opened(folder / "frames.html", folder, scheme)


# Attributes whose address is loaded with the page, whatever the element; `href` is of a few.
LOADED = ("src", "srcset", "poster", "data", "background", "xlink:href")
LOADED_BY_LINK = ("stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest")


def loaded_by_style(text: str) -> list[str]:
    """The addresses in a style sheet."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = re.findall(r"url\(\s*['\"]?([^'\")]*)", text)
    return found + re.findall(r"@import\s+['\"]([^'\"]*)", text)


def is_elsewhere(address: str) -> bool:
    """Whether a network would be asked."""
    return re.match(r"\s*(//|(?!data:)[a-z][a-z0-9+.-]*:)", address, re.IGNORECASE) is not None


class Page(html.parser.HTMLParser):
    """What a page links to or loads, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self._element = ""
        self.feed(text)

    @property
    def from_elsewhere(self) -> list[str]:
        """What a browser would ask a network for."""
        return [address for address in self.loaded if is_elsewhere(address)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element = tag
        values = {name: value for name, value in attrs if value}
        for name, value in values.items():
            if name == "id":
                self.anchors.add(value)
            if name in ("href", "src"):
                self.addresses.append(value)
            if name in LOADED:
                self.loaded += re.split(r",\s+", value) if name == "srcset" else [value]
            if name == "style":
                self.loaded += loaded_by_style(value)
        relations = (values.get("rel") or "").lower().split()
        if (tag == "link" and set(relations) & set(LOADED_BY_LINK)) or tag in ("base", "use"):
            self.loaded.append(values.get("href", ""))
        if values.get("http-equiv", "").lower() == "refresh":
            self.loaded.append(values["content"].rpartition("=")[2])

    def handle_data(self, data: str) -> None:
        if self._element == "style":
            self.loaded += loaded_by_style(data)
        elif self._element == "script":
            asked = re.findall(r"(?:import|fetch|open|src\s*=)\W*['\"]([^'\"]*)", data)
            self.loaded += asked

    def handle_endtag(self, tag: str) -> None:
        self._element = ""
