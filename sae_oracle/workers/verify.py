"""The main job, one backend: every quantity of the Keras objects against the oracle, on real data.

Runs in a process of its own (`python -m sae_oracle.workers.verify --device cpu`), because Keras
fixes its backend once; the backend is KERAS_BACKEND. Writes one JSON line for each step of the work
and a last one with everything it found. `sae_oracle.cli` starts it, `sae_oracle.report` shows it.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

import reference
from keras_impl.backends.autodiff import compiled, has_gradients, value_and_gradients
from keras_impl.backends.process import full_float32_products, use_dtype, versions
from keras_impl.losses import HalfSquaredError
from keras_impl.models import SparseAutoencoder
from keras_impl.regularizers import KLSparsityRegularizer
from reference.rounding import smaller
from sae_oracle.datasets import digits, natural_patches
from sae_oracle.workers.channel import device_or_exit, say
from sae_oracle.workers.oracle_bridge import oracle_arguments, set_parameters, to_parameters


@dataclass(frozen=True)
class Measurement:
    """One quantity of one case, compared with the oracle.

    Args:
        equation: The label of the equation that it holds.
        quantity: What was compared, in words.
        size: Samples and units: how long the sums are.
        case: On which data and network.
        dtype: "float32" or "float64".
        worst: The largest error in units of its bound; `None` if Keras itself fails here.
        resolution: The relative error that is certain to be found (EQ-BOUND-RESOLUTION).
        undecidable: The share of elements whose bound says nothing.
        elements: How many numbers were compared.
        failure: What Keras said, if it fails here.
        suspicion: The largest error in units of the likely bound (`reference.likely`): above 1 it
            is suspicious. `None` where there is none.
        likely: The relative error that is certain to be suspicious; `None` where there is none.
    """

    equation: str
    quantity: str
    size: str
    case: str
    dtype: str
    worst: float | None
    resolution: float
    undecidable: float
    elements: int
    failure: str = ""
    suspicion: float | None = None
    likely: float | None = None


def measurement(
    equation: str,
    quantity: str,
    size: str,
    case: str,
    dtype: str,
    actual: Any,
    expected: reference.Bounded,
    likely: reference.Bounded | None = None,
) -> Measurement:
    """Compare one quantity of this backend with the oracle's value and bounds."""
    numbers = ops.convert_to_numpy(actual)
    used = reference.usage(numbers, expected)
    less = None if likely is None else smaller(expected, likely)
    return Measurement(
        equation,
        quantity,
        size,
        case,
        dtype,
        used.worst,
        reference.resolution(expected),
        used.undecidable,
        used.elements,
        suspicion=None if less is None else reference.usage(numbers, less).worst,
        likely=None if less is None else reference.resolution(less),
    )


@dataclass(frozen=True)
class Case:
    """A network on a data set.

    Args:
        name: Its name in the table of cases.
        data: Which data set: "patches" or "digits".
        arguments: Those of `SparseAutoencoder`.
        learning_rate: Of the descent, a power of two: exact in every format.
        steps: Of the descent. With each the bound grows, the faster the larger the network is.
        samples: How many samples.
        side: Of a patch, in pixels.
        dtypes: In which it is computed, where the backend has them.
        size: The row of the table that it goes into.
        likely: Whether likely bounds are computed too.
    """

    name: str
    data: str
    arguments: dict[str, Any]
    learning_rate: float = 0.25
    steps: int = 5
    samples: int = 256
    side: int = 8
    dtypes: tuple[str, ...] = ("float32", "float64")
    size: str = "256 × 64"
    likely: bool = True

    def inputs(self) -> np.ndarray:
        """Return the data, (samples, side²)."""
        return _inputs(self.data, self.samples, self.side)


@functools.cache
def _inputs(data: str, samples: int, side: int) -> np.ndarray:
    return natural_patches(samples, side) if data == "patches" else digits()[:samples]


REAL_SIZE = Case(
    "784-196-784 on patches",
    "patches",
    {"hidden_units": 196, "rho": 0.05, "beta": 3.0, "weight_decay": 1e-4},
    steps=1,
    samples=1000,
    side=28,
    size="1,000 × 784-196",
)

# The notes' own network first. Digits run from 0 to 1, so a sigmoid may saturate on them.
CASES = (
    Case(
        "64-25-64 on patches",
        "patches",
        {"hidden_units": 25, "rho": 0.01, "beta": 3.0, "weight_decay": 1e-4},
    ),
    Case(
        "64-25-64 tied on patches",
        "patches",
        {"hidden_units": 25, "rho": 0.01, "beta": 3.0, "weight_decay": 1e-4, "tied": True},
    ),
    Case(
        "64-25-64 from logits on digits",
        "digits",
        {"hidden_units": 25, "rho": 0.1, "beta": 3.0, "weight_decay": 3e-3, "from_logits": True},
    ),
    Case(
        "64-32-16-32-64 on digits",
        "digits",
        {"hidden_units": (32, 16), "rho": 0.05, "beta": 1.0, "weight_decay": 1e-3},
    ),
    Case(
        "64-32-16-32-64 tied on digits",
        "digits",
        {
            "hidden_units": (32, 16),
            "rho": 0.05,
            "beta": 1.0,
            "weight_decay": 1e-3,
            "tied": True,
            "tied_decay": 2,
        },
    ),
    Case(
        "64-25-64 tanh, linear decoder, on patches",
        "patches",
        {
            "hidden_units": 25,
            "rho": 0.4,
            "beta": 3.0,
            "weight_decay": 1e-3,
            "activation": "tanh",
            "output_activation": "linear",
            "symmetric": True,
        },
        learning_rate=2.0**-6,
    ),
    Case(
        "64-25-64 relu on digits",
        "digits",
        {
            "hidden_units": 25,
            "rho": 0.2,
            "beta": 0.125,
            "weight_decay": 1e-3,
            "activation": "relu",
            "epsilon": 0.01,
        },
        learning_rate=2.0**-6,
    ),
    REAL_SIZE,
    replace(
        REAL_SIZE,
        name="784-196-784 from logits on patches",
        arguments=REAL_SIZE.arguments | {"from_logits": True},
    ),
)

# The oracle computes it with bounds in float64 on the host: some 20·10¹² operations and 40 GB.
# Likely bounds would take as much again.
WIDE = Case(
    "4,096-32,768-4,096 on patches",
    "patches",
    {"hidden_units": 32768, "rho": 0.05, "beta": 3.0, "weight_decay": 1e-4},
    steps=0,
    samples=4096,
    side=64,
    dtypes=("float32",),
    size="4,096 × 4,096-32,768",
    likely=False,
)

FALSE_ALARM = 1e-9
"""The probability that something right is suspicious, for all numbers of a case together."""


def cost_of(model: SparseAutoencoder, x: Any) -> Callable[..., Any]:
    """Return the model's cost as a function of its weights and its input, for differentiation."""

    def cost(*tensors: Any) -> Any:
        *weights, inputs = tensors
        output, _, losses = model.stateless_call(
            weights, [v.value for v in model.non_trainable_variables], inputs, return_losses=True
        )
        # The target is held fixed, even where it is the very tensor that is differentiated by.
        return model.reconstruction_loss(ops.stop_gradient(x), output) + sum(losses)

    return cost


def parts(step: reference.BoundedStep) -> dict[str, reference.Bounded]:
    """Return what is compared of a step, by a name for each."""
    cost, gradient = step.cost, step.gradient
    return {
        "reconstruction": cost.reconstruction,
        "weight decay": cost.weight_decay,
        "sparsity": cost.sparsity,
        "total cost": cost.total,
        **{f"kernel {i}": kernel for i, kernel in enumerate(gradient.kernels)},
        **{f"bias {i}": bias for i, bias in enumerate(gradient.biases)},
        "input": step.x,
    }


def hold_model(case: Case, x: np.ndarray, dtype: str) -> Iterator[Measurement]:
    """Hold a model's cost terms, gradients and descent to the oracle."""
    model = SparseAutoencoder(**case.arguments, seed=0, dtype=dtype)
    model.build((None, x.shape[1]))
    sizes = (x.shape[1], *model.hidden_units)
    start = reference.initialise((*sizes, *reversed(sizes[:-1])), seed=1, tied=model.tied)
    set_parameters(model, start)
    parameters = to_parameters(model)
    arguments = oracle_arguments(model)
    from_logits = model.penalties[0].from_logits

    bounds = {
        false_alarm: parts(
            reference.cost_and_gradient_with_bounds(
                parameters,
                x,
                **arguments,
                from_logits=from_logits,
                summation="rows first",
                precision=dtype,
                false_alarm=false_alarm,
            )
        )
        for false_alarm in ((0.0, FALSE_ALARM) if case.likely else (0.0,))
    }

    def compare(equation: str, quantity: str, actual: Any, part: str) -> Measurement:
        return measurement(
            *(equation, quantity, case.size, case.name, dtype, actual),
            *(of_parts[part] for of_parts in bounds.values()),
        )

    tensor = ops.convert_to_tensor(x, dtype=dtype)
    output = model(tensor)
    losses = list(model.losses)
    terms = {
        "reconstruction": model.reconstruction_loss(tensor, output),
        "weight_decay": sum(losses[-len(model.kernels) :]),
        "sparsity": sum(losses[: -len(model.kernels)]),
    }
    yield compare(
        "EQ-RECONSTRUCTION",
        "reconstruction",
        terms["reconstruction"],
        "reconstruction",
    )
    yield compare("EQ-DECAY", "weight decay", terms["weight_decay"], "weight decay")
    yield compare(
        "EQ-SPARSITY-LOGITS" if from_logits else "EQ-SPARSITY",
        "sparsity from logits" if from_logits else "sparsity",
        terms["sparsity"],
        "sparsity",
    )
    yield compare("EQ-COST", "total cost", sum(terms.values()), "total cost")
    if not has_gradients():
        return

    variables = [*model.kernels, *model.biases]
    position = {id(v): i for i, v in enumerate(model.trainable_variables)}
    order = [position[id(variable)] for variable in variables]
    weights = [v.value for v in model.trainable_variables]

    def gradients_at(*tensors: Any) -> list[Any]:
        return value_and_gradients(cost_of(model, tensor), tensors)[1]

    # JAX compiles each operation of an eager gradient by itself: a quarter of this worker's time.
    is_jax = keras.config.backend() == "jax"
    gradients = (compiled(gradients_at) if is_jax else gradients_at)(*weights, tensor)
    equation = "EQ-GRADIENT-TIED" if model.tied else "EQ-GRADIENT"
    names = [f"kernel {i}" for i in range(len(model.kernels))]
    names += [f"bias {i}" for i in range(len(model.biases))]
    for name, index in zip(names, order, strict=True):
        kind = name.split()[0]
        quantity = f"gradient by {'tied ' if model.tied and kind == 'kernel' else ''}{kind}"
        label = "EQ-GRADIENT" if kind == "bias" else equation
        yield compare(label, quantity, gradients[index], name)
    yield compare("EQ-DELTA", "gradient by input", gradients[-1], "input")

    if not case.steps:
        return
    reached = reference.gradient_descent_with_bounds(
        parameters,
        x,
        steps=case.steps,
        learning_rate=case.learning_rate,
        precision=dtype,
        from_logits=from_logits,
        **arguments,
    )
    model.compile(keras.optimizers.SGD(case.learning_rate))
    model.fit(x, batch_size=len(x), epochs=case.steps, shuffle=False, verbose=0)
    quantity = f"weights after {case.steps} {'step' if case.steps == 1 else 'steps'} of fit"
    for variable, expected in zip(variables, [*reached.kernels, *reached.biases], strict=True):
        yield measurement(
            *("EQ-BOUND-DESCENT", quantity, case.size, case.name, dtype, variable.value, expected)
        )


# Keras's own failures, on 3.15.1: where one is mended, the quantity is compared like any other.
# numpy: `normalize(x, axis=0)` divides along the last axis (`axis or -1`): an error where rows and
# columns differ in number, a wrong value where they do not.
# tensorflow: the factor is a float32 tensor, and TensorFlow multiplies no float32 by a float64.
KERAS_FAILS = {
    ("numpy", "float32", "Keras orthogonal, columns"),
    ("tensorflow", "float64", "Keras orthogonal, rows"),
    ("tensorflow", "float64", "Keras orthogonal, columns"),
}


def hold_regularizers(x: np.ndarray, dtype: str) -> Iterator[Measurement]:
    """Hold the regularizers and the loss, called by themselves, to the oracle."""
    generator = np.random.default_rng(2)
    logits = (x @ reference.initialise((x.shape[1], 25), seed=3).kernels[0]).astype(dtype)
    activations = reference.sigmoid(logits).astype(dtype)
    weights = generator.normal(size=(9, 14)).astype(dtype)
    # torch multiplies matrices in float32 even where they are float64 (`ops.matmul`), and the
    # factors of Keras's own regularizers are float32 tensors on every backend.
    builtin = "float32"
    where = CASES[0].size, "called directly"

    def both(
        labels: tuple[str, str],
        name: str,
        regularizer: Callable[[Any], Any],
        argument: np.ndarray,
        expected: tuple[reference.Bounded, reference.Bounded],
    ) -> Iterator[Measurement]:
        tensor = ops.convert_to_tensor(argument, dtype=dtype)
        try:
            value = regularizer(tensor)
        except Exception as error:
            if (keras.config.backend(), dtype, name) not in KERAS_FAILS:
                raise
            failure = f"{type(error).__name__}: {error}".split("\n")[0]
            yield Measurement(labels[0], name, *where, dtype, None, 0.0, 0.0, 0, failure)
            return
        yield measurement(labels[0], name, *where, dtype, value, expected[0])
        if has_gradients():
            _, (gradient,) = value_and_gradients(regularizer, [tensor])
            yield measurement(labels[1], f"{name}, gradient", *where, dtype, gradient, expected[1])

    yield from both(
        ("EQ-SPARSITY", "EQ-SPARSITY-SLOPE"),
        "KLSparsityRegularizer",
        KLSparsityRegularizer(0.05, 3.0, batch_scaling=False),
        activations,
        reference.kl_sparsity_with_bounds(activations, 0.05, 3.0, epsilon=1e-6, precision=dtype),
    )
    yield from both(
        ("EQ-KL-LOGITS", "EQ-KL-LOGITS-DERIVATIVE"),
        "KLSparsityRegularizer from logits",
        KLSparsityRegularizer(0.05, 3.0, from_logits=True, batch_scaling=False),
        30.0 * logits,
        reference.kl_sparsity_with_bounds(
            (30.0 * logits).astype(dtype), 0.05, 3.0, from_logits=True, precision=dtype
        ),
    )
    target = ops.convert_to_tensor(x[:, :25], dtype=dtype)
    loss = HalfSquaredError(dtype=dtype)
    yield measurement(
        "EQ-RECONSTRUCTION",
        "HalfSquaredError",
        *where,
        dtype,
        loss(target, ops.convert_to_tensor(activations, dtype=dtype)),
        reference.reconstruction_with_bounds(
            activations, x[:, :25].astype(dtype), summation="rows first", precision=dtype
        ),
    )
    for name, label, regularizer, factors in (
        ("L1", "EQ-L1", keras.regularizers.L1(0.01), (0.01, 0.0)),
        ("L2", "EQ-L2", keras.regularizers.L2(0.01), (0.0, 0.01)),
        ("L1L2", "EQ-L1L2", keras.regularizers.L1L2(0.01, 0.02), (0.01, 0.02)),
    ):
        yield from both(
            (label, f"{label}-GRADIENT"),
            f"Keras {name}",
            regularizer,
            weights,
            reference.l1_l2_with_bounds(weights, *factors, precision=builtin),
        )
    for mode in ("rows", "columns"):
        yield from both(
            ("EQ-ORTHOGONAL", "EQ-ORTHOGONAL-GRADIENT"),
            f"Keras orthogonal, {mode}",
            keras.regularizers.OrthogonalRegularizer(0.01, mode),
            weights,
            reference.orthogonal_with_bounds(weights, 0.01, mode, precision=builtin),
        )


def dtypes_of(backend: str) -> tuple[str, ...]:
    """The dtypes that a backend has: Keras computes in float32 alone on numpy and openvino.

    >>> [len(dtypes_of(name)) for name in ("jax", "tensorflow", "torch", "numpy", "openvino")]
    [2, 2, 2, 1, 1]
    """
    return ("float32",) if backend in ("numpy", "openvino") else ("float32", "float64")


def main() -> None:
    """Hold this process's backend to the oracle and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--wide", action="store_true")
    arguments = parser.parse_args()
    device = arguments.device
    backend = keras.config.backend()
    started = time.perf_counter()
    full_float32_products()
    in_use = device_or_exit(device)
    cases = (WIDE,) if arguments.wide else CASES
    dtypes = [d for d in dtypes_of(backend) if any(d in case.dtypes for case in cases)]
    steps = sum(dtype in case.dtypes for dtype in dtypes for case in cases) + len(dtypes)
    found: list[Measurement] = []
    done = 0
    for dtype in dtypes:
        use_dtype(dtype)
        for case in cases:
            if dtype not in case.dtypes:
                continue
            found += hold_model(case, case.inputs().astype(dtype), dtype)
            done += 1
            say({"kind": "step", "done": done, "of": steps})
        if not arguments.wide:
            found += hold_regularizers(CASES[0].inputs().astype(dtype), dtype)
        done += 1
        say({"kind": "step", "done": done, "of": steps})
    result = {
        "kind": "result",
        "backend": backend,
        "device": in_use,
        "versions": versions(backend),
        "seconds": round(time.perf_counter() - started, 1),
        "measurements": [asdict(m) for m in found],
    }
    say(result)


if __name__ == "__main__":
    main()
