"""Mistakes planted in the formulas of the oracle, one at a time: a sign, an operation, a number.

`python -m tests.sae_oracle.formula_mutants` prints how many there are in each function, how many
fail a vector, and those that fail none.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType

import numpy as np

import reference
from reference import activations, cost, divergence, estimators, gradient, network, regularizers
from sae_oracle.conformance.oracle import answers
from sae_oracle.conformance.vectors import Vector, judge

# They change no number that is compared: what is refused, ρ = 0 or 1 (the bounds are of a ρ inside
# (0, 1)), infinite numbers where ε = 0, an edge within 2^-53 of 1, a shift that cancels, a diagonal
# that is projected away, and a size that NumPy finds out for -2 as for -1.
CHANGE_NOTHING = (
    "outside = ~((array >= 0.0) & (array <= 1.0)) [39] 1.0 -> 2.0",
    "divergence: Array = np.where(rho > 0.0, of_ones, 0.0) + np.where(rest > 0.0, of_zeros, 0.0)"
    " [49] 0.0 -> 1.0",
    "divergence: Array = np.where(rho > 0.0, of_ones, 0.0) + np.where(rest > 0.0, of_zeros, 0.0)"
    " [87] 0.0 -> 1.0",
    "derivative: Array = np.where(rest > 0.0, of_zeros, 0.0) - np.where(rho > 0.0, of_ones, 0.0)"
    " [51] 0.0 -> 1.0",
    "derivative: Array = np.where(rest > 0.0, of_zeros, 0.0) - np.where(rho > 0.0, of_ones, 0.0)"
    " [87] 0.0 -> 1.0",
    "if epsilon == 0.0: [14] 0.0 -> 1.0",
    "return kl_divergence(rho, r) + np.where(beyond == 0.0, 0.0, tangent) [50] 0.0 -> 1.0",
    "return min(1.0 - epsilon, 1.0 - 2.0**-53) [26] 1.0 - 2.0 ** (-53) -> 1.0 + 2.0 ** (-53)",
    "return min(1.0 - epsilon, 1.0 - 2.0**-53) [26] 1.0 -> 2.0",
    "return min(1.0 - epsilon, 1.0 - 2.0**-53) [32] 2.0 ** (-53) -> 2.0 * -53",
    "return min(1.0 - epsilon, 1.0 - 2.0**-53) [32] 2.0 -> 3.0",
    "return min(1.0 - epsilon, 1.0 - 2.0**-53) [38] 53 -> 54",
    "weights = np.exp(values - np.max(values, axis=0))"
    " [17] values - np.max(values, axis=0) -> values + np.max(values, axis=0)",
    "return array.reshape(-1, array.shape[-1]) [22] 1 -> 2",
    "np.fill_diagonal(signs, 0.0) [24] 0.0 -> 1.0",
)

MODULES = (activations, divergence, estimators, network, cost, gradient, regularizers)

OTHER: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
}


@dataclass(frozen=True)
class Planted:
    """One mistake in one function.

    Args:
        function: The function.
        words: The line as it is, and as it might have been.
        code: What the function then runs.
    """

    function: FunctionType
    words: str
    code: CodeType

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let everything that calls the function run the mistake."""
        right = self.function.__code__
        self.function.__code__ = self.code
        try:
            yield
        finally:
            self.function.__code__ = right


def functions() -> list[FunctionType]:
    """The functions of the formulas, those without a label too."""
    return [
        member
        for module in MODULES
        for member in vars(module).values()
        if inspect.isfunction(member)
        and member.__module__ == module.__name__
        and not member.__closure__
    ]


def _places(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute something; not what is said when an argument is refused."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.arguments | ast.JoinedStr):
            continue
        if isinstance(node, ast.If) and any(isinstance(n, ast.Raise) for n in node.body):
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "real_number":
            continue
        yield node
        yield from _places(node)


def _changed(node: ast.AST) -> ast.AST | None:
    """Return what might have stood in the place of a node; `None`: nothing."""
    if isinstance(node, ast.BinOp) and type(node.op) in OTHER:
        return ast.BinOp(node.left, OTHER[type(node.op)](), node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return node.operand
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        return ast.Compare(node.left, [OPPOSITE[type(node.ops[0])]()], node.comparators)
    number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
    return ast.Constant(node.value + 1) if number else None


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else super().generic_visit(node)


def mutants_of(function: FunctionType) -> Iterator[Planted]:
    """Yield every mistake of one function."""
    text = textwrap.dedent(inspect.getsource(function))
    count = sum(1 for node in _places(ast.parse(text).body[0]))
    for position in range(count):
        tree = ast.parse(text)
        node = list(_places(tree.body[0]))[position]
        new = _changed(node)
        if new is None:
            continue
        before = ast.unparse(node)
        tree = ast.fix_missing_locations(_Replace(node, ast.copy_location(new, node)).visit(tree))
        module = compile("from __future__ import annotations\n", "", "exec")
        code = compile(tree, function.__code__.co_filename, "exec", module.co_flags)
        inner = next(c for c in code.co_consts if isinstance(c, CodeType))
        line = text.splitlines()[node.lineno - 1].strip()
        column = node.col_offset - (len(text.splitlines()[node.lineno - 1]) - len(line))
        yield Planted(function, f"{line} [{column}] {before} -> {ast.unparse(new)}", inner)


def in_order(function: FunctionType, vectors: Sequence[Vector]) -> list[Vector]:
    """The vectors of a function's label first, then one after the other of every label."""
    name = f"{function.__module__}.{function.__name__}"
    labels = [e.label for e in reference.equations().values() if e.function == name]
    seen: Counter[str] = Counter()
    order = []
    for vector in vectors:
        of_many_costs = vector.label in ("EQ-NUMERICAL-GRADIENT", "EQ-BOUND-DESCENT")
        order.append((vector.label not in labels, of_many_costs, seen[vector.label], vector))
        seen[vector.label] += 1
    return [vector for *_, vector in sorted(order, key=lambda row: row[:3])]


def failing(planted: Planted, vectors: Sequence[Vector]) -> str | None:
    """Return the identifier of the first vector that fails with a mistake; `None`: none does."""
    with planted.in_place(), np.errstate(all="ignore"):
        for vector in vectors:
            try:
                if judge(vector, answers(vector), "float64").status == "failed":
                    return vector.identifier
            except Exception:
                return vector.identifier
    return None


def main() -> None:
    from sae_oracle.conformance.vectors import read_vectors

    vectors = read_vectors()
    for function in functions():
        order = in_order(function, vectors)
        found = {p.words: failing(p, order) for p in mutants_of(function)}
        lived = [words for words, vector in found.items() if vector is None]
        print(f"{function.__name__}: {len(found) - len(lived)} of {len(found)}")
        for words in lived:
            print(f"    {words!r},")


if __name__ == "__main__":
    main()
