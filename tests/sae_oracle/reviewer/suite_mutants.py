"""The mistakes of `tests.mutants` held to the vectors: each planted in the running code, and asked.

    KERAS_BACKEND=torch python -m tests.sae_oracle.reviewer.suite_mutants --write

writes the section of docs/caught.md that says which vector each fails first, and who was asked:
three minutes of one core. On tensorflow it asks those that torch does not run, and keeps the rest.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

import keras
import numpy as np

import keras_impl
from keras_impl.backends.arrays import as_float64
from keras_impl.backends.process import use_dtype
from reference import Parameters
from sae_oracle.conformance.vectors import Judgement, Vector, judge, read_vectors
from sae_oracle.reviewer.evaluation import as_number, gradient_of
from sae_oracle.workers.subjects import held, subject_of
from sae_oracle.workers.vectors import spread
from tests.mutants import MUTANTS, ROOT, Mutant
from tests.sae_oracle.reviewer.caught import OF_THE_SUITE, PAGE, question_of
from tests.sae_oracle.reviewer.corpus.cases import CASES

Answers = Mapping[str, Any]
Asked = Callable[[Vector], "Answers | Judgement | None"]

# Why a mistake is no wrong number of an equation that has vectors: by its file, or by its words.
NO_NUMBER = {
    "the first β watched": "what is kept between two calls is no equation",
    "callbacks.py": "what is watched is no equation",
    "units.py": "a change of units is no equation",
    "initializers.py": "other random numbers than the oracle's",
    "bounds.py": "a bound: the files would be others",
    "rounding.py": "a bound: the files would be others",
    "likely.py": "a likely error has no vectors",
    "replicas": "vectors are asked on one device",
    "another device": "vectors are asked on one device",
    "second derivative": "no equation has a second derivative",
    "slope with rho's own rounding": "as much as ρ is rounded: inside the bound",
    "decay in one sum": "another order of a sum: inside the bound",
    "batch scaling always": "on a Keras that divides it is none",
    "config without beta": "what is saved is no equation",
    "losses let go": "what is kept between two calls is no equation",
    "a second use clears the first": "what is kept between two calls is no equation",
    "masked steps counted in any": "of a penalty of anybody's no equation has a mask",
    "unknown to its model": "which variables a model has is no equation",
    "metrics unweighted": "no equation has weights of samples",
    "divided by weights": "no equation has weights of samples",
    "certified.py": "of the digits: the files would be others",
    "what comes back": "no vector has a penalty times a number",
    "sigmoids: σ(−z)": "its text is run on NumPy, on OpenVINO and under torch.func alone",
    "logits: mask ignored": "no equation of logits has a mask",
    "what is padded times 0": "of a penalty of anybody's no equation has a mask",
    "the fullest unit": "no equation has a mask that tells units apart",
    "counted from the checkpoint": "what a checkpoint counts is no equation",
    "since the first checkpoint": "what a checkpoint counts is no equation",
}


def reason(mutant: Mutant) -> str | None:
    """Why a mutant fails no vector; `None`: it must fail one."""
    if mutant.file.startswith("sae_oracle/"):
        return "of the tools: no number of an implementation"
    for words, why in NO_NUMBER.items():
        if mutant.file.endswith(words) or words in mutant.mistake:
            return why
    return None


# --- planting


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """The functions of a module and the methods of its classes, by qualified name."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname, constant
            if "<locals>" not in constant.co_qualname:
                yield from _codes(constant)


def _text(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without where it stands."""
    inner = [_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, inner


def _function(module: ModuleType, qualified: str) -> FunctionType | None:
    """The function of a qualified name; `None`: it is none that can be reached."""
    found: Any = module
    for name in qualified.split("."):
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    found = getattr(found, "fget", None) or getattr(found, "__wrapped__", found)
    found = getattr(found, "__func__", found)
    return found if isinstance(found, FunctionType) else None


@contextmanager
def planted(mutant: Mutant) -> Iterator[bool]:
    """Let the running code have a mistake; yields whether it could be planted."""
    path = ROOT / mutant.file
    text = path.read_text(encoding="utf-8")
    module = importlib.import_module(mutant.file.removesuffix(".py").replace("/", "."))
    right = dict(_codes(compile(text, str(path), "exec", dont_inherit=True)))
    wrong = dict(_codes(compile(text.replace(mutant.right, mutant.wrong), str(path), "exec")))
    changed = {
        name: _function(module, name)
        for name in wrong
        if name in right and "<locals>" not in name and _text(right[name]) != _text(wrong[name])
    }
    changed = {name: f for name, f in changed.items() if f is not None}
    made = [
        (variable, f)
        for name, f in changed.items()
        for variable in re.findall(rf"^\s*(\w+) = {re.escape(name)}\(\)$", text, re.MULTILINE)
    ]
    before = {
        variable: getattr(module, variable) for variable, _ in made if hasattr(module, variable)
    }
    codes = {name: f.__code__ for name, f in changed.items()}
    try:
        for name, f in changed.items():
            f.__code__ = wrong[name]
        _forget()
        for variable, f in made:
            if variable in before:
                setattr(module, variable, f())
        yield bool(changed)
    finally:
        for name, f in changed.items():
            f.__code__ = codes[name]
        for variable, value in before.items():
            setattr(module, variable, value)
        _forget()


def _forget() -> None:
    """Let what the package keeps of its functions, compiled too, be made anew."""
    of_package = [module for name, module in sys.modules.items() if name.startswith("keras_impl")]
    for member in [member for module in of_package for member in vars(module).values()]:
        getattr(member, "cache_clear", lambda: None)()
    if keras.config.backend() == "jax":
        import jax

        jax.clear_caches()


# --- who is asked


def _network(vector: Vector, precision: str = "float32") -> tuple[Any, dict[str, Any]] | None:
    """A `SparseAutoencoder` with the weights of a vector, and what else the vector has."""
    given = dict(vector.arguments)
    if vector.label != "EQ-COST" or precision not in vector.formats:
        return None
    parameters: Parameters = given.pop("parameters")
    sizes = parameters.sizes
    x, y = given.pop("x"), given.pop("y", None)
    if sizes != tuple(reversed(sizes)):
        return None
    given.setdefault("epsilon", 0.0)
    model = keras_impl.SparseAutoencoder(
        sizes[1 : len(sizes) // 2 + 1], tied=parameters.tied, dtype=precision, **given
    )
    model.build((None, sizes[0]))
    keras_impl.set_parameters(model, parameters)
    return model, {"x": x.astype(precision), "y": None if y is None else y.astype(precision)}


def exact_cost(vector: Vector, precision: str = "float32") -> Answers | None:
    """The exact cost in chunks of two, the last one filled up."""
    found = _network(vector, precision)
    if found is None:
        return None
    model, data = found
    cost, slopes = keras_impl.full_cost_and_gradient(model, data["x"], 2, y=data["y"])
    by_path = {v.path: s for v, s in zip(model.trainable_variables, slopes, strict=True)}
    order = [v.path for v in (*model.kernels, *model.biases)]
    return {
        "value": cost.total,
        "reconstruction": cost.reconstruction,
        "weight_decay": cost.weight_decay,
        "sparsity": cost.sparsity,
        "gradient": np.concatenate([np.ravel(as_float64(by_path[path])) for path in order]),
    }


def exact_cost_in_float64(vector: Vector) -> Answers | None:
    """The same of a model in float64."""
    use_dtype("float64")
    try:
        return exact_cost(vector, "float64")
    finally:
        use_dtype("float32")


def evaluated(vector: Vector) -> Answers | None:
    """What `evaluate` says of one batch: the cost and its terms."""
    found = _network(vector)
    if found is None:
        return None
    model, data = found
    model.compile("sgd", run_eagerly=keras.config.backend() == "tensorflow")
    told = model.evaluate(
        data["x"], data["y"], batch_size=len(data["x"]), verbose=0, return_dict=True
    )
    return {"value": told.pop("loss"), **told}


def _penalty(vector: Vector, **more: Any) -> tuple[Any, Any, dict[str, Any]] | None:
    """A `KLSparsity` of a vector, and its input."""
    given = dict(vector.arguments)
    if vector.label not in ("EQ-SPARSITY", "EQ-SPARSITY-LOGITS") or "float32" not in vector.formats:
        return None
    x = given.pop("activations", None)
    x = given.pop("logits") if x is None else x
    mask = given.pop("mask", None)
    given["epsilon"] = given.get("epsilon", 0.0)
    if vector.label == "EQ-SPARSITY-LOGITS":
        more = {**more, "from_logits": True}
    return keras_impl.KLSparsity(**given, **more), x, {} if mask is None else {"mask": mask}


def exact_penalty(vector: Vector) -> Answers | None:
    """The exact term of a penalty alone, in chunks of two."""
    found = _penalty(vector)
    if found is None or found[2] or found[1].ndim != 2:
        return None
    layer, x, _ = found
    identity = keras.layers.Dense(x.shape[1], use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input(x.shape[1:]), identity, layer])
    return {"value": keras_impl.full_cost(model, x.astype("float32"), 2).sparsity}


def first_of_an_average(vector: Vector) -> Answers | None:
    """A running average at its first batch, which is the mean of that batch."""
    if vector.label != "EQ-SPARSITY":
        return None
    found = _penalty(vector, momentum=0.5)
    if found is None:
        return None
    layer, x, mask = found
    mask = {name: keras.ops.convert_to_tensor(m) for name, m in mask.items()}

    def penalty(t: Any) -> Any:
        layer(t, training=True, **mask)
        return sum(layer.losses)

    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(keras.ops.zeros_like(weight))
    value = as_number(penalty(keras.ops.convert_to_tensor(x, "float32")))
    for weight in layer.weights:
        weight.assign(keras.ops.zeros_like(weight))
    if keras.config.backend() == "jax":
        return {"value": value}
    return {"value": value, "gradient": gradient_of(penalty, x)}


def running_average(vector: Vector) -> Answers | None:
    """The stored average after two batches, with one in inference between them."""
    if vector.label != "EQ-RHO-HAT-RUNNING":
        return None
    given = vector.arguments
    layer = keras_impl.KLSparsity(0.5, 1.0, momentum=given["momentum"])
    for mean in (given["previous"], given["batch_mean"]):
        if mean is not None:
            layer(keras.ops.convert_to_tensor(mean[None], "float32"), training=True)
            layer(keras.ops.convert_to_tensor(0.0 * mean[None], "float32"), training=False)
    (state,) = [w for w in layer.weights if w.shape == given["batch_mean"].shape]
    return {"value": as_float64(state)}


def any_penalty(vector: Vector) -> Answers | None:
    """`ActivityPenalty` of Keras's L2, of activations in bfloat16."""
    weights = vector.arguments.get("weights")
    if vector.label != "EQ-L2" or weights.ndim != 2 or "bfloat16" not in vector.formats:
        return None
    layer = keras_impl.ActivityPenalty(
        keras.regularizers.L2(vector.arguments["factor"]), dtype="bfloat16"
    )
    layer(keras.ops.convert_to_tensor(weights, "bfloat16"))
    (value,) = layer.losses
    return {"value": float(as_float64(value))}


def tied_layer(vector: Vector) -> Answers | None:
    """`DenseTied` behind a `Dense`, with their penalty: the gradient of EQ-COST."""
    given = dict(vector.arguments)
    if vector.label != "EQ-COST" or "tied_decay" in given or "y" in given:
        return None
    parameters: Parameters = given.pop("parameters")
    if not parameters.tied or len(parameters.kernels) != 1 or given.get("symmetric"):
        return None
    decay = keras_impl.WeightDecay(given["weight_decay"])
    hidden = given.get("activation", "sigmoid")
    last = given.get("output_activation") or hidden
    encoder = keras.layers.Dense(parameters.sizes[1], hidden, kernel_regularizer=decay)
    penalty = keras_impl.KLSparsity(given["rho"], given["beta"], epsilon=given.get("epsilon", 0.0))
    decoder = keras_impl.DenseTied(tied_to=encoder, activation=last)
    model = keras.Sequential([keras.Input(parameters.sizes[:1]), encoder, penalty, decoder])
    model.compile("sgd", loss=keras_impl.HalfSquaredError())
    encoder.set_weights([parameters.kernels[0], parameters.biases[0]])
    decoder.bias.assign(parameters.biases[1])
    cost, slopes = keras_impl.full_cost_and_gradient(model, given["x"].astype("float32"))
    by_path = {
        v.path: as_float64(s) for v, s in zip(model.trainable_variables, slopes, strict=True)
    }
    order = [v.path for v in (encoder.kernel, encoder.bias, decoder.bias)]
    return {"value": cost.total, "gradient": np.concatenate([by_path[p].ravel() for p in order])}


def in_format(precision: str) -> Asked:
    """The penalty of activations in another format."""

    def asked(vector: Vector) -> Answers | None:
        found = _penalty(vector, dtype=precision)
        if found is None or found[2] or precision not in vector.formats:
            return None
        layer, x, _ = found

        def penalty(t: Any) -> Any:
            layer(t)
            (value,) = layer.losses
            return value

        value = as_float64(penalty(keras.ops.convert_to_tensor(x, precision)))
        if precision != "float32":
            return {"value": float(value)}
        return {"value": float(value), "gradient": gradient_of(penalty, x)}

    return asked


OBJECTS = (
    "KLSparsityRegularizer", "KLSparsity", "HalfSquaredError", "WeightDecay", "SparseAutoencoder",
)  # fmt: skip


ASKED: dict[str, tuple[str, Asked]] = {
    "full_cost_and_gradient": ("float32", exact_cost),
    "full_cost_and_gradient in float64": ("float64", exact_cost_in_float64),
    "full_cost of a penalty": ("float32", exact_penalty),
    "evaluate": ("float32", evaluated),
    "KLSparsity with momentum": ("float32", first_of_an_average),
    "its running average": ("float32", running_average),
    "ActivityPenalty in bfloat16": ("bfloat16", any_penalty),
    "DenseTied": ("float32", tied_layer),
    "KLSparsity of all axes": ("float32", in_format("float32")),
    "KLSparsity in bfloat16": ("bfloat16", in_format("bfloat16")),
    "KLSparsity in float64": ("float64", in_format("float64")),
}
"""Who is asked beside the objects: the format that it computes in, and how."""


@functools.cache
def asked(name: str) -> tuple[str, Asked]:
    """The format that somebody computes in, and how to ask."""
    if name in ASKED:
        return ASKED[name]
    case = next(case for case in CASES if case.name == name)
    subject = subject_of(question_of(case), spread(read_vectors()))

    def of_subject(vector: Vector) -> Answers | Judgement | None:
        return held(subject, vector) if vector.label in subject.labels else None

    return "float32", of_subject


def fails(name: str, vector: Vector) -> bool:
    """Whether who is asked fails a vector now."""
    precision, ask = asked(name)
    try:
        answer = ask(vector)
    except Exception:
        return True
    if answer is None:
        return False
    judged = answer if isinstance(answer, Judgement) else judge(vector, answer, precision)
    return judged.status == "failed"


def first_failure(mutant: Mutant, pairs: Sequence[tuple[str, Vector]]) -> tuple[str, str] | None:
    """Who fails which vector first with a mistake planted; `None`: nobody."""
    with planted(mutant) as could:
        if not could:
            return None
        for name, vector in pairs:
            if fails(name, vector):
                return name, vector.identifier
    return None


SLOW = (
    "SparseAutoencoder", "full_cost_and_gradient", "full_cost of a penalty", "evaluate",
    "full_cost_and_gradient in float64",
)  # fmt: skip
"""Whoever makes a model for each vector: asked one vector of each kind."""


ON_OTHERS = {
    "tensorflow": ("KLSparsityRegularizer", "KLSparsity with momentum"),
    "jax": ("KLSparsityRegularizer", "KLSparsity of all axes", "full_cost_and_gradient in float64"),
}
"""Who is asked where torch does not run a mistake's text: nearly all of it is of penalties."""


def is_asked_on(mutant: Mutant, backend: str) -> bool:
    """Whether a mistake is asked about on a backend: on torch wherever torch runs it."""
    return backend == "torch" if "torch" in mutant.backends else backend in mutant.backends


def pairs_of(vectors: Sequence[Vector], names: Sequence[str]) -> list[tuple[str, Vector]]:
    """Whom to ask what: the first vector of everyone, then the second, ...; of a model the last."""
    ranked = []
    for name in names:
        precision, ask = asked(name)
        kinds: set[Any] = set()
        rank = 0
        for vector in vectors:
            kind = vector.label, vector.flags, frozenset(vector.inputs)
            if name in SLOW and kind in kinds:
                continue
            answer = ask(vector)
            if answer is None:
                continue
            kinds.add(kind)
            judged = answer if isinstance(answer, Judgement) else judge(vector, answer, precision)
            if judged.status == "failed":
                raise ValueError(f"{name} fails {vector.identifier} without a mistake")
            ranked.append((name in SLOW, rank, name, vector))  # NaN fails what else decides nothing
            rank += 1
    return [(name, v) for *_, name, v in sorted(ranked, key=lambda row: row[:2])]


def recorded() -> dict[str, list[str]]:
    """The cells of the page, by the mistake."""
    text = PAGE.read_text(encoding="utf-8").partition(OF_THE_SUITE)[2]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {cells[0]: cells for cells in rows[2:]}


def section(found: Mapping[str, Sequence[str]]) -> str:
    """What the page says of the suite's mutants."""
    lines = [
        OF_THE_SUITE,
        "Each mistake that [the suite](mutants.md) plants in the code, planted while it runs, on",
        "torch (`python -m tests.sae_oracle.reviewer.suite_mutants --write`), and where torch does",
        "not run its text on TensorFlow or JAX (`KERAS_BACKEND=jax` before it): who is asked, and",
        "the first vector that fails. Some formulas torch has written out: the rows `fused`.",
        "",
        "| mistake | who is asked | the vector that it fails |",
        "|---|---|---|",
        *(f"| {mutant.mistake} | {' | '.join(found[mutant.mistake][-2:])} |" for mutant in MUTANTS),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the section of docs/caught.md")
    parser.add_argument("--only", metavar="WORDS", help="ask those again; keep the other rows")
    chosen = parser.parse_args()
    found: dict[str, Sequence[str]] = {} if chosen.only is None else dict(recorded())
    backend = keras.config.backend()
    on_torch = backend == "torch"
    kept = recorded()
    pairs: list[tuple[str, Vector]] = []
    for mutant in MUTANTS:
        if chosen.only is not None and not re.search(chosen.only, mutant.mistake):
            continue
        why = reason(mutant)
        pair = ["", f"none: {why}"]
        if why is None:  # not yet, or by another backend
            _, *pair = kept.get(mutant.mistake, ["", "", "none"])
        if why is None and is_asked_on(mutant, backend):
            names = (*OBJECTS, *ASKED) if on_torch else ON_OTHERS[backend]
            pairs = pairs or pairs_of(read_vectors(), names)
            of_models = re.search(r"exact|models|tied", mutant.file)
            order = sorted(pairs, key=lambda p: p[0] not in SLOW) if of_models else pairs
            failure = first_failure(mutant, order)
            if failure is not None:
                who = failure[0] if on_torch else f"{failure[0]} on {backend}"
                pair = [who, failure[1]]
            elif on_torch:
                pair = ["", "none"]
        found[mutant.mistake] = pair
        print(f"{mutant.mistake} | {' | '.join(pair)}", flush=True)
    if chosen.write:
        before = PAGE.read_text(encoding="utf-8").partition(OF_THE_SUITE)[0].rstrip("\n")
        PAGE.write_text(f"{before}\n\n{section(found)}", encoding="utf-8")


if __name__ == "__main__":
    main()
