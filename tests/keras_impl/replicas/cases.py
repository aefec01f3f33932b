"""What is trained on replicas: models that hold each object, and what the oracle says of them.

Every model but "average" has Ng's cost, so one oracle serves: the terms, the gradient and three
steps of gradient descent on the *global* batch. Programs `on_*.py` train them on an engine, in
processes of their own, and write what they found; `test_replicas.py` compares.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import reference

FEATURES, RHO, BETA, DECAY = 6, 0.1, 3.0, 0.01
RATE, STEPS, MOMENTUM = 0.25, 3, 0.5

# The object, and the hidden layers of the model that holds it.
KINDS = {
    "KLSparsity": (4,),
    "KLSparsity, from logits": (4,),
    "KLSparsityRegularizer": (4,),
    "KLSparsityRegularizer and KLSparsity": (4,),
    "SparseAutoencoder": (4,),
    "SparseAutoencoder, deep and tied": (4, 3),
    "SparseAutoencoder, from logits": (4,),
    "KLSparsity, running average": (4,),
    "KLSparsity, per replica": (4,),
    "SparseAutoencoder, per replica": (4,),
}
# Made with other coefficients and changed before the first step: compiled steps read variables.
CHANGED = ("SparseAutoencoder, deep and tied", "KLSparsityRegularizer and KLSparsity")
RIGHT = [kind for kind in KINDS if "per replica" not in kind]
WRONG = [kind for kind in KINDS if "per replica" in kind]
FEW = [
    "KLSparsity",
    "KLSparsity, running average",
    "SparseAutoencoder, from logits",
    "SparseAutoencoder, deep and tied",
]
# What Keras itself averages over replicas, whatever their rows (the reconstruction of a compiled
# loss), is left out where batches are uneven.
UNEVEN = [kind for kind in RIGHT if kind.startswith("SparseAutoencoder")]


def data(rows: int) -> Any:
    """Rows whose halves differ much, so that the means of replicas do."""
    x = np.random.default_rng(0).uniform(size=(rows, FEATURES))
    x[: rows // 2] *= 0.1
    return x.astype("float32")


def arguments(kind: str) -> dict[str, Any]:
    return {
        "rho": RHO,
        "beta": BETA,
        "weight_decay": DECAY,
        "epsilon": 1e-6,
        "from_logits": "from logits" in kind,
    }


def start(kind: str) -> reference.Parameters:
    """The initial weights: wide, so that mean activations are far from ½; float32 numbers."""
    hidden = KINDS[kind]
    sizes = (FEATURES, *hidden, *hidden[-2::-1], FEATURES)
    parameters = reference.initialise(sizes, seed=1, tied="tied" in kind)
    return reference.Parameters(
        [(3.0 * kernel).astype("float32") for kernel in parameters.kernels],
        parameters.biases,
        tied=parameters.tied,
    )


def build(kind: str, rate: float = RATE, scope: Any = None) -> Any:
    """A compiled Keras model that holds the object and the initial weights.

    Args:
        kind: One of `KINDS`.
        rate: The learning rate.
        scope: Of a strategy, in which the model is made, and not changed.
    """
    from keras_impl import set_hyperparameters

    rho, beta, decay = (0.4, 1.0, 0.3) if kind in CHANGED else (RHO, BETA, DECAY)
    with scope or nullcontext():
        model = make(kind, rho, beta, decay, rate)
    if kind in CHANGED:
        half = 2.0 if kind.startswith("KLSparsityRegularizer and") else 1.0
        set_hyperparameters(model, rho=RHO, beta=BETA / half, weight_decay=DECAY)
    return model


def make(kind: str, rho: float, beta: float, decay: float, rate: float) -> Any:
    """The model of `build`, with these coefficients."""
    import keras

    import keras_impl

    cross_replica = "per replica" not in kind
    from_logits = "from logits" in kind
    if kind.startswith("SparseAutoencoder"):
        model: Any = keras_impl.SparseAutoencoder(
            KINDS[kind],
            rho,
            beta,
            decay,
            tied="tied" in kind,
            from_logits=from_logits,
            cross_replica=cross_replica,
        )
        model.build((None, FEATURES))
        model.compile(keras.optimizers.SGD(rate))
    else:
        regularizer = None
        if kind.startswith("KLSparsityRegularizer"):
            # With the layer beside it: half of the term each.
            half = beta / 2 if "and" in kind else beta
            regularizer = keras_impl.KLSparsityRegularizer(rho, half)
        layers = [
            keras.Input((FEATURES,)),
            keras.layers.Dense(
                4,
                activation=None if from_logits else "sigmoid",
                kernel_regularizer=keras_impl.WeightDecay(decay),
                activity_regularizer=regularizer,
            ),
        ]
        if kind != "KLSparsityRegularizer":
            layers.append(
                keras_impl.KLSparsity(
                    rho,
                    beta / 2 if "and" in kind else beta,
                    from_logits=from_logits,
                    momentum=MOMENTUM if "average" in kind else None,
                    cross_replica=cross_replica,
                )
            )
        if from_logits:
            layers.append(keras.layers.Activation("sigmoid"))
        layers.append(
            keras.layers.Dense(
                FEATURES,
                activation="sigmoid",
                kernel_regularizer=keras_impl.WeightDecay(decay),
            )
        )
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(rate), loss=keras_impl.HalfSquaredError())
    parameters = start(kind)
    for variable, value in zip(
        variables(model), [*parameters.kernels, *parameters.biases], strict=True
    ):
        variable.assign(value)
    return model


def variables(model: Any) -> list[Any]:
    """Kernels, then biases, as the oracle orders them."""
    if hasattr(model, "kernels"):
        return [*model.kernels, *model.biases]
    dense = [layer for layer in model.layers if hasattr(layer, "kernel")]
    return [layer.kernel for layer in dense] + [layer.bias for layer in dense]


def weights(model: Any) -> list[Any]:
    import keras

    return [keras.ops.convert_to_numpy(variable.value) for variable in variables(model)]


def state(model: Any) -> Any:
    """ρ̂ of the running average."""
    import keras

    return keras.ops.convert_to_numpy(model.layers[1].rho_hat.value)


FULL = ["KLSparsity", "KLSparsityRegularizer", "SparseAutoencoder, from logits"]


def full_data(found: Found, worker: int, workers: int) -> None:
    """The exact cost, its gradient and L-BFGS, with 23 rows split over workers unevenly."""
    from keras_impl import fit_lbfgs, full_cost, full_cost_and_gradient

    x = data(23)
    part = np.array_split(x, [8, 15][: workers - 1])[worker]
    for kind in FULL[workers - 2 :]:
        model = build(kind)
        cost = full_cost(model, part, batch_size=5)
        again, gradient = full_cost_and_gradient(model, part)
        by_variable = {id(v): g for v, g in zip(model.trainable_variables, gradient, strict=True)}
        found.add(
            kind,
            "full",
            cost=[cost.reconstruction, cost.weight_decay, cost.sparsity],
            loss=np.array([again.total]),
            gradient=[by_variable[id(v)] for v in variables(model)],
        )
    history = fit_lbfgs(model, part, iterations=5, batch_size=5, verbose=False).history
    found.add(kind, "lbfgs", loss=np.array(history["loss"]), reached=weights(model))


def refuse_different_weights(found: Found, worker: int) -> None:
    from keras_impl import full_cost

    model = build("SparseAutoencoder")
    model.biases[0].assign(np.full(4, worker, "float32"))
    try:
        full_cost(model, data(8))
    except ValueError as error:
        found.add("different", "weights", refused=str(error))


class Found:
    """What a program found: arrays under keys, written as one file."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def add(self, *key: Any, **arrays: Any) -> None:
        for name, value in arrays.items():
            if isinstance(value, list):
                for i, item in enumerate(value):
                    self.arrays["/".join(map(str, (*key, name, i)))] = np.asarray(item)
            else:
                self.arrays["/".join(map(str, (*key, name)))] = np.asarray(value)

    def write(self, path: str) -> None:
        np.savez(path, **self.arrays)


def read(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def averaged_descent(x: Any, steps: int) -> tuple[list[float], Any, reference.Parameters]:
    """The costs, the state and the weights of gradient descent with a running average, by hand."""
    parameters = start("KLSparsity, running average")
    average: Any = None
    costs = []
    for _ in range(steps):
        passed = reference.forward(parameters, x)
        batch = reference.mean_activation(passed.hidden[0])
        average = reference.running_average(average, batch, MOMENTUM)
        divergence = reference.kl_divergence(RHO, average)
        plain = reference.sparse_autoencoder_cost(
            parameters, x, rho=RHO, beta=0.0, weight_decay=DECAY
        )
        costs.append(plain.total + BETA * float(np.sum(divergence)))
        gradient = reference.sparse_autoencoder_gradient(
            parameters, x, rho=RHO, beta=0.0, weight_decay=DECAY
        )
        # KL′ of the average with the gradient of the batch mean, through the hidden layer.
        a = passed.hidden[0]
        slope = BETA / len(x) * reference.kl_divergence_derivative(RHO, average)
        delta = slope * a * (1.0 - a)
        kernels = [gradient.kernels[0] + x.T @ delta, gradient.kernels[1]]
        biases = [gradient.biases[0] + delta.sum(axis=0), gradient.biases[1]]
        parameters = reference.Parameters(
            [w - RATE * g for w, g in zip(parameters.kernels, kernels, strict=True)],
            [b - RATE * g for b, g in zip(parameters.biases, biases, strict=True)],
        )
    return costs, average, parameters
