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


_OPENING = {"(": ")", "|": "|", "‖": "‖"}


def _group(text: str, start: int) -> int:
    """Return where what begins with a bracket or a bar ends, with its indices; `start`: nowhere."""
    closing = _OPENING.get(text[start : start + 1])
    depth = 0  # of round brackets
    for i in range(start + 1, len(text)) if closing else ():
        if text[i] == closing and not depth:
            token = _TOKEN.match(text, i)
            return token.end() if token else i + 1
        depth += (text[i] == "(") - (text[i] == ")")
        if depth < 0:
            break
    return start


def _operand(text: str, start: int) -> int:
    """Return where what a stroke may divide ends: letters, numbers, brackets, without a space."""
    end = i = start if start == len(text) or text[start] == "(" else _group(text, start)
    while i < len(text):
        token = _TOKEN.match(text, i)
        assert token is not None
        if text[i] == "(":
            end = _group(text, i)
            if end == i:
                break
        elif text[i] == "√" or (text[i] == "Σ" and token.end() < len(text)):
            after = _operand(text, token.end())
            if after == token.end() or (text[i] == "Σ" and text[token.end()] != "("):
                break
            end = after
        elif text[i].isalnum() or text[i] in "∂½":
            end = token.end()
        elif text[i] != "·":
            break
        else:
            i += 1
            continue
        i = end
    return end


def _fraction(text: str, start: int) -> tuple[int, int, int] | None:
    """Return where the numerator ends and the denominator begins and ends, if one is here."""
    numerator = _operand(text, start)
    stroke = re.compile(" ?/ ?").match(text, numerator)
    if numerator == start or stroke is None:
        return None
    denominator = _operand(text, stroke.end())
    return (numerator, stroke.end(), denominator) if denominator > stroke.end() else None


def _pieces(formula: str) -> Iterator[str]:
    """Yield what stands between spaces; a fraction and a root are in one piece."""
    piece, i = "", 0
    while i < len(formula):
        end = i + 1
        fraction = None if piece[-1:].isalnum() else _fraction(formula, i)
        if fraction is not None:
            end = fraction[-1]
        elif formula[i] == "√":
            end = max(end, _group(formula, end))
        elif formula[i] == " ":
            yield piece
            piece, i = "", end
            continue
        piece += formula[i:end]
        i = end
    yield piece


def _math(text: str) -> str:
    """Return the inside of `<math>`."""
    parts = []
    i = 0
    while i < len(text):
        fraction = _fraction(text, i)
        token = _TOKEN.match(text, i)
        assert token is not None
        end = token.end()
        if fraction is not None:
            numerator, denominator, end = fraction
            above, below = _bare(text[i:numerator]), _bare(text[denominator:end])
            parts.append(f"<mfrac><mrow>{_math(above)}</mrow><mrow>{_math(below)}</mrow></mfrac>")
        elif text[i] == "√":
            inside = text[end : _group(text, end)]
            if not inside:
                root = _TOKEN.match(text, end)
                # Of a sum only a reader sees the end.
                inside = root[0] if root is not None and root["base"] != "Σ" else ""
            end += len(inside)
            typeset = f"<msqrt>{_math(_bare(inside))}</msqrt>" if inside else _typeset(token)
            parts.append(typeset)
        elif "<mfrac>" in (inside := _inside(text, i)):
            end = _group(text, i)
            only = _fraction(text, i + 1)
            if only is not None and only[-1] == end - 1 and not text[i - 1 : i].isalnum():
                parts.append(inside)  # a fraction needs no brackets
            else:
                parts.append(f"<mrow><mo>(</mo>{inside}<mo>)</mo></mrow>")
        else:
            parts.append(_typeset(token))
        i = end
    return "".join(parts)


def _inside(text: str, start: int) -> str:
    """Return what is in round brackets that begin here and have no index, typeset; else ""."""
    end = _group(text, start) if text[start] == "(" else start
    return _math(text[start + 1 : end - 1]) if text[end - 1 : end] == ")" and end > start else ""


def _bare(text: str) -> str:
    """Return an operand without the brackets that a line makes superfluous."""
    is_one = text.startswith("(") and _group(text, 0) == len(text) and text.endswith(")")
    return text[1:-1] if is_one else text


def _is_prose(piece: str, following: str) -> bool:
    """Whether a piece is a word of the sentence, and no letter of the formula."""
    bare = piece.strip(".,:;()")
    if re.fullmatch(r"EQ-[A-Z0-9-]+|`\w+`|[A-Za-z'-]{2,}", bare):
        return bare != "log"
    # The article, and not the activation.
    return piece == "a" and re.fullmatch(r"[a-z-]{3,}[.,:;]?", following) is not None


def typeset(formula: str) -> str:
    """Return a formula, and the sentence about it, as HTML with MathML.

    A line may be broken at each of its spaces, but those of a fraction and under a root.

    Args:
        formula: As a docstring has it: letters with Unicode's indices, or `_` and `_{...}`.

    >>> typeset("½, as in EQ-KL")
    '<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>, as in EQ-KL'
    >>> typeset("1/m")
    '<math><mfrac><mrow><mn>1</mn></mrow><mrow><mi>m</mi></mrow></mfrac></math>'
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
