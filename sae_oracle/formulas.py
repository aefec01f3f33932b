"""The formulas of `reference.equations()`, typeset in MathML: no script, nothing from a network."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ˡᴸᵀᶻ", "0123456789+−()lLTz", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ᵢⱼₗᵣₛ", "0123456789ijlrs", strict=True))

ACCENTS = {"\u0302": "^", "\u0305": "¯"}

_RAISED, _LOWERED = "".join(RAISED), "".join(LOWERED)

_TOKEN = re.compile(
    rf"""(?P<base>[A-Za-z]+|\d+(?:\.\d+)?|.)
     (?P<accent>[{"".join(ACCENTS)}]?)
     (?P<low>[{_LOWERED}]+|_\{{[^}}]*\}}|_[^\W\d_{_RAISED}]+)?
     (?P<high>[{_RAISED}]+)?""",
    re.VERBOSE,
)


def _element(text: str) -> str:
    escaped = html.escape(text)
    if text == " ":  # under a root
        return "<mspace width='.25em'/>"
    if re.fullmatch(r"[\d.]+", text):
        return f"<mn>{escaped}</mn>"
    if text.isalpha() and text != "Σ":
        return f"<mi>{escaped}</mi>"
    if text == "½":
        return "<mfrac><mn>1</mn><mn>2</mn></mfrac>"
    # Room is where the formula has a space.
    return f"<mo stretchy='false' lspace='0' rspace='0'>{escaped}</mo>"


def _row(indices: str) -> str:
    """Return what stands in an index, as one element: letters are one each, but for names."""
    letters = "".join((RAISED | LOWERED).get(c, c) for c in indices).strip("_{}")
    is_name = indices.startswith("_") and letters.isascii() and letters.isalpha()
    parts = [letters] if is_name else re.findall(r"\d+|.", letters)
    return f"<mrow>{''.join(map(_element, parts))}</mrow>"


def _typeset(token: re.Match[str]) -> str:
    base, low, high = _element(token["base"]), token["low"], token["high"]
    if token["accent"]:
        accent = _element(ACCENTS[token["accent"]])
        base = f"<mover accent='true'>{base}{accent}</mover>"
    if low and high:
        return f"<msubsup>{base}{_row(low)}{_row(high)}</msubsup>"
    if low:
        return f"<msub>{base}{_row(low)}</msub>"
    return f"<msup>{base}{_row(high)}</msup>" if high else base


def _pieces(formula: str) -> Iterator[str]:
    """Yield what stands between spaces; a root of what stands in brackets is one piece."""
    piece, depth = "", 0  # of brackets, from that of the root on
    for letter in formula:
        if letter == " " and not depth:
            yield piece
            piece = ""
            continue
        if depth or piece.endswith("√"):
            depth += (letter == "(") - (letter == ")")
        piece += letter
    yield piece


def _math(piece: str) -> str:
    """Return the inside of `<math>`."""
    before, root, rest = piece.partition("√")
    typeset = "".join(map(_typeset, _TOKEN.finditer(before)))
    if not root:
        return typeset
    if rest.startswith("("):
        end = depth = 1
        while depth:
            depth += (rest[end] == "(") - (rest[end] == ")")
            end += 1
        inside, rest = rest[1 : end - 1], rest[end:]
    else:
        token = _TOKEN.match(rest)
        if token is None or token["base"] == "Σ":  # of a sum, whose end only a reader sees
            return typeset + _element(root) + _math(rest)
        inside, rest = token[0], rest[token.end() :]
    return f"{typeset}<msqrt>{_math(inside)}</msqrt>{_math(rest)}"


def _is_prose(piece: str, following: str) -> bool:
    """Whether a piece is a word of the sentence, and no letter of the formula."""
    bare = piece.strip(".,:;()")
    if re.fullmatch(r"EQ-[A-Z0-9-]+|`\w+`|[A-Za-z'-]{2,}", bare):
        return bare != "log"
    # The article, and not the activation.
    return piece == "a" and re.fullmatch(r"[a-z-]{3,}[.,:;]?", following) is not None


def typeset(formula: str) -> str:
    """Return a formula, and the sentence about it, as HTML with MathML.

    A line may be broken at each of its spaces, but those under a root.

    Args:
        formula: As a docstring has it: letters with Unicode's indices, or `_` and `_{...}`.

    >>> typeset("½, as in EQ-KL")
    '<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>, as in EQ-KL'
    """
    pieces = list(_pieces(formula))
    parts = []
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        if _is_prose(piece, following):
            parts.append(re.sub(r"`(\w+)`", r"<code>\1</code>", html.escape(piece)))
            continue
        core = piece.rstrip(".,:;")
        end = piece[len(core) :]
        parts.append((f"<math>{_math(core)}</math>" if core else "") + html.escape(end))
    return " ".join(parts)
