"""The configuration of the documentation site, which `docs/build.py` builds."""

import re
from importlib.metadata import version as version_of
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

project = "sae-oracle"
author = "The sae-oracle authors"
project_copyright = author
version = release = version_of("sae-oracle")
language = "en"

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
exclude_patterns = ["_build"]
nitpicky = True
suppress_warnings = ["myst.header"]  # a page that is written by a program may begin at any level
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_title = f"sae-oracle {release}"
html_copy_source = False
html_show_sourcelink = False
html_css_files = ["site.css"]
html_static_path = ["_static"]
pygments_style = "default"
pygments_dark_style = "github-dark"

LABEL = re.compile(r"\b(EQ-[A-Z0-9]+(?:-[A-Z0-9]+)*|SAE\d{3})\b")


class LinksOfLabels(SphinxTransform):
    """Makes each label of an equation or a finding in the text a link to its page."""

    default_priority = 500

    def apply(self, **unused: Any) -> None:
        """Replace the labels of one page."""
        kept = (nodes.literal, nodes.literal_block, nodes.title, nodes.reference, nodes.raw)
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            if isinstance(parent, (*kept, pending_xref)) or parent.tagname.startswith("desc_"):
                continue
            if isinstance(parent.parent, pending_xref | nodes.reference | nodes.title):
                continue
            parts: list[nodes.Node] = []
            for i, part in enumerate(LABEL.split(str(text))):
                page = f"{'equations' if part.startswith('EQ') else 'findings'}/{part}"
                if i % 2 and page in self.env.found_docs and page != self.env.docname:
                    link = pending_xref(
                        "",
                        nodes.inline("", part),
                        refdomain="std",
                        reftype="doc",
                        reftarget=f"/{page}",
                        refexplicit=True,
                        refwarn=True,
                        refdoc=self.env.docname,
                    )
                    parts.append(link)
                elif part:
                    parts.append(nodes.Text(part))
            if len(parts) > 1 or (parts and not isinstance(parts[0], nodes.Text)):
                parent.replace(text, parts)


def inline_formula(translator: Any, node: nodes.math) -> None:
    """Write a formula as MathML, which needs no script and no network."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_formula(translator: Any, node: nodes.math_block) -> None:
    """The same for one that stands alone."""
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two with Sphinx."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
    app.add_transform(LinksOfLabels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


html_math_renderer = "mathml"
