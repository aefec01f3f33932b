"""Builds the documentation site: `python docs/build.py`, which is `make docs`.

The pages of this folder are copied to `build/docs/source`. Beside them are written, from the code,
a page an equation, a page a finding, and the reference of names and commands. Sphinx makes
`build/docs/html` of all. A warning is an error.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages that stand elsewhere in the repository, under the name that they have on the site.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "vectors/README.md": "vectors-covered.md",
}
# A page an equation and a page a finding are reached from the table of all, not from the sidebar:
# their names on every page were two thirds of the time that the site took to build.
ORPHAN = ["---", "orphan: true", "---", ""]


def copy_pages(source: Path) -> None:
    """Copy what is written by hand, with links that are right on the site."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("*.py", "__pycache__", "_build"))
    for page, name in ELSEWHERE.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
        text = re.sub(r"\[([\w.-]+)\]\([\w.-]+\.json\)", r"\1", text)
        text = re.sub(r"\[([^\]]+)\]\(tests/[^)]*\)", r"\1", text)  # no page of the site
        (source / name).write_text(text, encoding="utf-8")
    for path in source.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(
            r"\]\(findings\.md#(sae\d+)\)", lambda m: f"](findings/{m[1].upper()}.md)", text
        )
        for page, name in ELSEWHERE.items():
            text = text.replace(f"](../{page}", f"]({name}")
        path.write_text(text, encoding="utf-8")


def escaped(text: str) -> str:
    """Return Markdown that shows a text as it is, but for what stands in backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([\\*_$\[\]<~{}])", r"\\\1", parts[i])
    return "".join(parts)


SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples):\s*(.*)")


def as_markdown(documentation: str) -> str:
    """Return a docstring of Google's style as Markdown."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(documentation)):
        rows = block.split("\n")
        section = SECTION.fullmatch(rows[0])
        if section is not None:
            lines += ["", f"**{section[1]}**", ""]
            if section[2]:
                lines.append(escaped(section[2]))
            lines += _section(rows[1:], section[1] in ("Args", "Attributes", "Raises"))
        elif rows[0].lstrip().startswith(">>>"):
            lines += ["", "```pycon", *(row.strip("\n") for row in rows), "```"]
        elif rows[0].startswith("    "):
            lines += ["", "```text", *(row[4:] for row in rows), "```"]
        else:
            lines += ["", escaped(block)]
    return "\n".join(lines).strip()


def _section(rows: list[str], named: bool) -> Iterator[str]:
    """Yield the lines of a section: a list of names, or a paragraph."""
    text = inspect.cleandoc("\n" + "\n".join(rows))
    if not named:
        yield escaped(text)
        return
    for row in text.split("\n"):
        name, colon, rest = row.partition(":")
        if colon and not row.startswith(" ") and re.fullmatch(r"[\w*, .]+", name):
            yield f"- {'**' + escaped(name) + '**'}:{escaped(rest)}"
        else:
            yield f"  {escaped(row.strip())}"


def signature(thing: Callable[..., Any], *, method: bool = False) -> str:
    """Return the arguments without their types, which the text says."""
    found = []
    parameters = inspect.signature(thing).parameters.values()
    for parameter in list(parameters)[method:]:
        default = parameter.default
        if default is not parameter.empty and not isinstance(
            default, str | int | float | bool | tuple | None
        ):
            default = ...
        found.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(inspect.Signature(found)).replace("Ellipsis", "...")


def described(name: str, thing: Any) -> str:
    """Return the entry of one name: what it is called with, and its docstring."""
    if not callable(thing):
        names = ", ".join(f"`{key}`" for key in thing)
        return f"````{{py:data}} {name}\n{names}\n````"
    text = as_markdown(inspect.getdoc(thing) or "")
    kind = "class" if inspect.isclass(thing) else "function"
    lines = [f"``````{{py:{kind}}} {name}{signature(thing)}", "", text, ""]
    for method, value in sorted(vars(thing).items()) if kind == "class" else ():
        what = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        own = inspect.isfunction(what) or isinstance(value, property)
        if method.startswith("_") or not own or not inspect.getdoc(what):
            continue
        if isinstance(value, property):
            head = f"`````{{py:property}} {method}"
        else:
            static = isinstance(value, staticmethod)
            head = f"`````{{py:method}} {method}{signature(what, method=not static)}"
        lines += [head, "", as_markdown(inspect.getdoc(what) or ""), "`````", ""]
    return "\n".join([*lines, "``````"])


def write_names(folder: Path, module: ModuleType) -> None:
    """Write the page of a package: each public name."""
    name = module.__name__
    lines = [f"# {name}", "", as_markdown(module.__doc__ or ""), ""]
    for public in sorted(module.__all__, key=str.lower):
        lines += ["", f"## {public}", "", described(f"{name}.{public}", getattr(module, public))]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def resolved(function: str) -> Any:
    """Return what a dotted name such as `reference.rounding.Arithmetic.store` names."""
    module, *rest = function.split(".")
    thing: Any = sys.modules[module]
    for name in rest:
        thing = getattr(thing, name)
    return thing


def rows_of_status() -> dict[str, list[list[str]]]:
    """Return what `verify` has compared of each equation, as docs/status.md has it."""
    text = (DOCS / "status.md").read_text(encoding="utf-8").partition("## By equation")[2]
    found: dict[str, list[list[str]]] = defaultdict(list)
    for line in re.findall(r"^\| (EQ-.*) \|$", text, re.M):
        label, _, *cells = line.split(" | ")
        if cells[0] != "—":
            found[label].append(cells)
    return found


def resolution(rows: list[list[str]]) -> list[str]:
    """Return Markdown: the errors that `verify` is certain to find."""
    if not rows:
        return ["`sae-oracle verify` compares no quantity of it by itself: the tests hold it."]
    return [
        "The relative error that `sae-oracle verify` is certain to find, in the worst case; after",
        "the stroke, that is certain to be suspicious. The worst is in units of the bound. All",
        "equations, and on which backends: [status](../status.md).",
        "",
        "| dtype | size | found | worst | numbers |",
        "|---|---|---|---|---|",
        *(
            f"| {dtype} | {size} | {finds} | {worst} | {numbers} |"
            for dtype, size, _, worst, finds, numbers in rows
        ),
    ]


def write_equations(source: Path) -> None:
    """Write a page an equation, and the list of all."""
    import reference
    from sae_oracle.catalogue import MISTAKES
    from sae_oracle.equations import bibtex, holding_tests
    from sae_oracle.formulas import typeset

    folder = source / "equations"
    folder.mkdir()
    tests = holding_tests()
    found = rows_of_status()
    rows = []
    for equation in reference.equations().values():
        label, formula = equation.label, typeset(equation.formula)
        word = re.compile(rf"{label}(?![A-Z0-9-])")
        citing = [m for m in MISTAKES if word.search(m.source)]
        _, _, public = equation.function.partition(".")
        public = public.rpartition(".")[2]
        where = f"`{equation.function}`"
        if public in reference.__all__:
            where = f"{{py:obj}}`reference.{public}`"
        thing = resolved(equation.function)
        method = "." in equation.function.partition(".")[2].partition(".")[2]
        lines = [
            *ORPHAN,
            f"# {label}",
            "",
            "One of [all equations](../equations.md).",
            "",
            "```{raw} html",
            '<div class="formula">',
            # Each label that it names has its page.
            re.sub(r"EQ-[A-Z0-9-]*[A-Z0-9]", r'<a href="\g<0>.html">\g<0></a>', formula),
            "</div>",
            "```",
            "",
            f"**Source.** {escaped(equation.source)}",
            "",
            f"**Function.** {where}, in `{Path(inspect.getfile(thing)).relative_to(ROOT)}`",
            "",
            "## What it computes",
            "",
            f"    {public}{signature(thing, method=method)}",
            "",
            as_markdown(
                re.sub(
                    r"(?ms)^.*?\n\n|^Source: .*?(\n\n|\Z)", "", inspect.getdoc(thing) or "", count=2
                )
            ),
            "",
            "## Resolution",
            "",
            *resolution(found.get(label, [])),
            "",
            "## Tests that hold it",
            "",
            *(f"- `{test}`" for test in tests[label]),
            "",
            *(["## Findings that cite it", ""] if citing else []),
            *(f"- {m.identifier}: {escaped(m.title)}" for m in citing),
            "",
            "## To cite it",
            "",
            "```bibtex",
            bibtex(equation),
            "```",
        ]
        (folder / f"{label}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = escaped(equation.formula).replace("|", "\\|")
        rows.append(f"| {label} | {text} |")
    page = ["# Equations", "", "Each has a page whose address stays.", "", "| label | formula |"]
    page += ["|---|---|", *rows]
    (source / "equations.md").write_text("\n".join(page) + "\n", encoding="utf-8")


def source_of(thing: Any) -> str:
    """Return the code of a class or function, or of `path.py:Object`; empty: it has none."""
    if not isinstance(thing, str):
        known = inspect.isclass(thing) or inspect.isfunction(thing)
        return inspect.getsource(thing).strip() if known else ""
    path, _, name = thing.partition(":")
    if not path.endswith(".py"):
        path = path.replace(".", "/") + ".py"
    text = (ROOT / path).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_source_segment(text, node) or ""
    return ""


def changed_pieces(wrong: Any) -> str:
    """Return the methods of a right class of the corpus that a wrong one replaces."""
    pieces = []
    for name, value in vars(wrong).items() if inspect.isclass(wrong) else ():
        base = getattr(wrong.__mro__[1], name, None)
        of_corpus = getattr(base, "__module__", "").startswith("tests.")
        if inspect.isfunction(value) and inspect.isfunction(base) and of_corpus:
            pieces.append(inspect.cleandoc("\n" + inspect.getsource(base)))
    return "\n\n".join(pieces)


def written_out(wrong: Any) -> str:
    """Return the code of a wrong class or function; with what it inherits, if that is all of it."""
    text = source_of(wrong)
    base = wrong.__mro__[1] if inspect.isclass(wrong) else object
    own = inspect.isclass(wrong) and any(map(inspect.isfunction, vars(wrong).values()))
    if not own and base.__module__.startswith("tests."):
        (parent,) = re.findall(rf"class {base.__name__}\((.*)\):", inspect.getsource(base))
        _, _, body = inspect.getsource(base).partition('."""\n')
        text = text.replace(f"({base.__name__})", f"({parent})") + "\n" + body.rstrip()
    return text


def examples_of_findings() -> dict[str, tuple[str, str]]:
    """Return for each identifier wrong code of the corpus, and the right one in its place.

    A wrong class there is a right one with one piece changed: that piece is the right code.
    """
    from tests.sae_oracle.reviewer.corpus import costs, functions, layers, regularizers
    from tests.sae_oracle.reviewer.corpus.cases import CASES

    by_name = {
        "SAE121": regularizers.FromLogits, "SAE124": regularizers.SymmetricTanh,
        "SAE129": functions.right, "SAE130": functions.right, "SAE131": functions.right,
        "SAE20": costs.half_squared_error, "SAE212": costs.Decay, "SAE213": costs.right_model,
        "SAE214": costs.right_model, "SAE215": costs.TiedModel, "SAE216": costs.TiedModel,
        "SAE603": regularizers.Right, "SAE702": regularizers.Right,
        "SAE805": layers.TransposedInCall,
    }  # fmt: skip
    found: dict[str, list[tuple[bool, int, int, str, str]]] = defaultdict(list)
    for case in CASES:
        wrong = written_out(case.thing)
        for identifiers in case.expected if wrong else ():
            for identifier in identifiers:
                right = changed_pieces(case.thing)
                for beginning, thing in by_name.items():
                    if identifier.startswith(beginning):
                        right = source_of(thing)
                found[identifier].append((not right, len(case.expected), len(wrong), wrong, right))
    # The corpus has a shorter name for what Keras calls it.
    register = '@keras.saving.register_keras_serializable(package="review_corpus")'
    return {
        identifier: tuple(re.sub("^@register$", register, c, flags=re.M) for c in min(examples)[3:])
        for identifier, examples in found.items()
    }


def write_findings(source: Path) -> None:
    """Write a page a finding."""
    from sae_oracle.catalogue import MISTAKES

    folder = source / "findings"
    folder.mkdir()
    examples = examples_of_findings()
    for mistake in MISTAKES:
        wrong, right = examples.get(mistake.identifier, ("", ""))
        lines = [
            *ORPHAN,
            f"# {mistake.identifier}",
            "",
            "One of [all findings](../findings.md).",
            "",
            f"**{mistake.severity.capitalize()}.** {escaped(mistake.title)}",
            "",
            f"**It violates** {escaped(mistake.source)}.",
            "",
            f"**The fix.** {escaped(mistake.fix)}",
        ]
        for name, code in (("Wrong", wrong), ("Right", right)):
            if code:
                lines += ["", f"## {name}", "", "```python", code, "```"]
        lines += [
            "",
            "What is not defined here is in `tests/sae_oracle/reviewer/corpus`.",
            f"In a terminal it is `sae-oracle explain {mistake.identifier}`.",
        ]
        path = folder / f"{mistake.identifier}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_commands(source: Path) -> None:
    """Write the page of the command line, from the help of each command."""
    from sae_oracle.cli import parser

    os.environ["COLUMNS"] = "80"
    root = parser()
    (commands,) = (action.choices for action in root._actions if isinstance(action.choices, dict))
    lines = ["# The command line", "", "[Exit statuses](exit-statuses.md) are the same for all."]
    for name, command in (("", root), *commands.items()):
        lines += ["", f"## {f'sae-oracle {name}'.strip()}", "", "```text"]
        lines += [command.format_help().rstrip(), "```"]
    (source / "command-line.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_notebook(source: Path) -> None:
    """Run the cells of start/notebook.py; write them with what came out, and as a notebook."""
    from matplotlib.figure import Figure

    from sae_oracle.pictures import write_png

    program = (DOCS / "start" / "notebook.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    page: list[str] = []
    cells: list[dict[str, Any]] = []
    for kind, text in re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", program, re.M | re.S):
        text = text.strip()
        if kind:
            text = re.sub(r"^# ?", "", text, flags=re.M)
            page += [text, ""]
            cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
            continue
        cells.append({"cell_type": "code", "metadata": {}, "source": text})
        cells[-1] |= {"execution_count": None, "outputs": []}
        page += ["```python", text, "```", ""]
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, "notebook.py", "exec"), names)
            value = eval(ast.unparse(last), names) if last is not None else None
        if isinstance(value, Figure):
            write_png(value, source / "start" / "notebook.png")
            page += ["![what the hidden units learned](notebook.png)", ""]
            value = None
        output = printed.getvalue() + (f"{value}\n" if value is not None else "")
        page += ["```text", output.rstrip(), "```", ""] if output.strip() else []
    page.append("Run it yourself: {download}`the notebook <notebook.ipynb>`.")
    (source / "start" / "notebook.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    content = json.dumps(notebook, indent=1, ensure_ascii=False)
    (source / "start" / "notebook.ipynb").write_text(content, encoding="utf-8")


def build(folder: Path) -> int:
    """Write the sources and build the site; return Sphinx's exit status."""
    sys.path.insert(0, str(ROOT))
    from sae_oracle.processes import TRAINING_BACKENDS, installed

    os.environ.setdefault("KERAS_BACKEND", next(filter(installed, TRAINING_BACKENDS[::-1])))
    import keras_impl
    import reference
    import sae_oracle

    source = folder / "source"
    if folder.exists():
        shutil.rmtree(folder)
    copy_pages(source)
    for module in (reference, keras_impl, sae_oracle):
        write_names(source / "api", module)
    write_equations(source)
    write_findings(source)
    write_commands(source)
    write_notebook(source)
    from sphinx.cmd.build import main as sphinx

    options = ["-c", str(DOCS), "-b", "html", "-d", str(folder / "doctrees"), "-n", "-W", "-q"]
    status = sphinx([*options, "--keep-going", str(source), str(folder / "html")])
    for page in (folder / "html").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(reduce(lambda t, pair: t.replace(*pair), FOR_KEYS, text), encoding="utf-8")
    return int(status)


FOR_KEYS = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    ('<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
    ("<pre>", '<pre tabindex="0">'),
    ('<div class="formula">', '<div class="formula" tabindex="0">'),
    ('<div class="math">', '<div class="math" tabindex="0">'),
    ('<th class="head"><p></p></th>', "<td></td>"),
    ('<div id="search-results">', '<h1>Search</h1><div id="search-results">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
)
"""What the theme leaves out: names for screen readers, and a way to scroll sideways by keys."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs")
    sys.exit(build(parser.parse_args().folder.resolve()))


if __name__ == "__main__":
    main()
