"""What a page links to, and what a browser would load with it."""

from __future__ import annotations

import html.parser
import re

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
