"""Bad input: an error that names the argument, its value and the allowed range, at once."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import reference
from reference.rounding import precision_named

PARAMETERS = reference.initialise((3, 2, 3), seed=0)
X = np.full((4, 3), 0.5)
GOOD: dict[str, Any] = {"rho": 0.1, "beta": 1.0, "weight_decay": 0.1}


def cost(**changed: Any) -> Any:
    return reference.sparse_autoencoder_cost(
        changed.pop("parameters", PARAMETERS), changed.pop("x", X), **{**GOOD, **changed}
    )


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"rho": 0.0}, ValueError, r"`rho` must lie in \(0.0, 1.0\). Received 0.0"),
    ({"rho": 1.0}, ValueError, "`rho`"),
    ({"rho": float("nan")}, ValueError, "`rho`"),
    ({"rho": "a"}, TypeError, "`rho` must be a number.*'a'"),
    ({"rho": True}, TypeError, "`rho`"),
    ({"beta": -1.0}, ValueError, r"`beta` must lie in \[0.0, inf\). Received -1.0"),
    ({"beta": float("inf")}, ValueError, "`beta`"),
    ({"weight_decay": -1e-9}, ValueError, "`weight_decay`"),
    ({"epsilon": 0.2}, ValueError, r"`epsilon` must lie in \[0, min\(rho, 1 - rho\)\]"),
    ({"epsilon": 0.2, "rho": 0.9}, ValueError, r"here \[0, 0.0999"),
    ({"epsilon": -0.1}, ValueError, "`epsilon`"),
    ({"epsilon": 0.5}, ValueError, "`epsilon`"),
    ({"x": np.ones((4, 2))}, ValueError, r"`x` must have shape \(m, 3\).*\(4, 2\)"),
    ({"x": np.ones((0, 3))}, ValueError, "`x`"),
    ({"x": np.ones(3)}, ValueError, "`x` must have 2 dimension"),
    ({"x": np.full((4, 3), np.nan)}, ValueError, "`x` must be finite"),
    ({"x": [["a"] * 3]}, TypeError, "`x` must be an array of real numbers"),
    ({"x": np.ones((4, 3), complex)}, TypeError, "`x`"),
    ({"x": np.ones((4, 3), bool)}, TypeError, "`x` must be an array of real numbers.*bool"),
    ({"y": np.ones((4, 2))}, ValueError, "`y` must have the shape"),
    ({"activation": "softmax"}, ValueError, "`activation` must be one of.*'softmax'"),
    ({"output_activation": "elu"}, ValueError, "`output_activation` must be one of.*'elu'"),
    ({"tied_decay": 3}, ValueError, "`tied_decay` must be 1 or 2. Received 3"),
    ({"tied_decay": 0}, ValueError, "`tied_decay`"),
    ({"tied_decay": True}, TypeError, "`tied_decay` must be an integer"),
    ({"tied_decay": np.array([1, 2])}, TypeError, "`tied_decay`"),
    ({"symmetric": "no"}, TypeError, "`symmetric` must be True or False. Received 'no'"),
    ({"symmetric": 1}, TypeError, "`symmetric`"),
    ({"symmetric": np.array([True])}, TypeError, "`symmetric`"),
    ({"activation": ["relu"]}, ValueError, "`activation` must be one of"),
    ({"x": [[1.0, 2.0], [3.0]]}, TypeError, "`x` must be an array that NumPy can read"),
    ({"y": np.full((4, 3), np.nan)}, ValueError, "`y` must be finite. Received nan"),
    ({"y": np.ones((1, 3))}, ValueError, "`y` must"),
    ({"y": np.ones((3, 4))}, ValueError, "`y` must"),
    ({"beta": 10**400}, ValueError, "`beta` must lie in"),
    # The plain divergence is not defined for activations outside [0, 1].
    ({"activation": "linear", "x": np.full((4, 3), 90.0)}, ValueError, r"must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("changed", "kind", "message"), ERRORS)
def test_cost_and_gradient_say_what_is_wrong(
    changed: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        cost(**changed)
    with pytest.raises(kind, match=message):
        reference.backpropagate(PARAMETERS, **{"x": X, **GOOD, **changed})
    # Outside [0, 1] the bounds of the plain divergence are not defined either.
    with pytest.raises(kind, match=message):
        reference.cost_and_gradient_with_bounds(PARAMETERS, **{"x": X, **GOOD, **changed})


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
def test_logits_are_those_of_sigmoid_units(activation: str) -> None:
    with pytest.raises(ValueError, match=f'`activation` must be "sigmoid".*{activation}'):
        reference.cost_and_gradient_with_bounds(
            PARAMETERS, X, **GOOD, epsilon=0.1, from_logits=True, activation=activation
        )


def test_parameters_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^`kernels\[1\]` must have 2 dimension"):
        reference.Parameters([np.ones((3, 2)), np.ones(2)], [np.zeros(2), np.zeros(2)])
    with pytest.raises(ValueError, match=r"^`biases\[0\]` must have 1 dimension"):
        reference.Parameters([np.ones((3, 2))], [np.zeros((2, 1))])
    with pytest.raises(ValueError, match=r"^`biases\[0\]` must be finite. Received nan"):
        reference.Parameters([np.ones((3, 2))], [np.array([0.0, np.nan])])
    with pytest.raises(TypeError, match=r"^`biases\[0\]` must be an array of real"):
        reference.Parameters([np.ones((3, 2))], [["a", "b"]])
    with pytest.raises(
        ValueError, match=r"^`kernels` must hold at least one matrix. Received none.$"
    ):
        reference.Parameters([], [])
    with pytest.raises(ValueError, match="`biases` must hold one vector for each of the 2 layers"):
        reference.Parameters([np.ones((3, 2)), np.ones((2, 3))], [np.zeros(2)])
    with pytest.raises(ValueError, match="layer 1 must have 2 rows"):
        reference.Parameters([np.ones((3, 2)), np.ones((3, 3))], [np.zeros(2), np.zeros(3)])
    with pytest.raises(ValueError, match=r"`biases\[0\]` must have shape \(2,\)"):
        reference.Parameters([np.ones((3, 2))], [np.zeros(3)])
    with pytest.raises(ValueError, match=r"`kernels\[0\]` must be finite"):
        reference.Parameters([np.full((3, 2), np.inf)], [np.zeros(2)])


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference.initialise((3,), 0), "`sizes` must hold at least two"),
        (lambda: reference.initialise((3, 0, 3), 0), "`sizes`"),
        (lambda: reference.initialise((3, 2), -1), "`seed` must be an integer ≥ 0. Received -1"),
        (lambda: reference.initialise((3, 2, 4), 0, tied=True), "`sizes` of a tied network"),
        (lambda: reference.unpack(np.ones(3), PARAMETERS), "`vector` must have 17 elements"),
        (
            lambda: reference.kl_divergence(0.5, [0.5, 1.5]),
            r"`rho_hat` must lie in \[0, 1\].*1.5. "
            "The divergence of the notes is not defined there; `extended_kl_divergence` is.$",
        ),
        (lambda: reference.kl_divergence(1.5, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.kl_divergence_derivative(-0.1, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.kl_divergence_derivative(1.1, 0.5), r"`rho` must lie in \[0.0, 1.0\]"),
        (lambda: reference.initialise((3, 2, 2, 3), 0, tied=True), "an odd number of entries"),
        (lambda: reference.mean_activation(np.ones((0, 2))), r"shape \(0, 2\).$"),
        (lambda: reference.mean_activation(np.ones((2, 0))), r"shape \(2, 0\).$"),
        (lambda: reference.kl_divergence_from_logits(0.5, [[np.inf]]), "`logits` must be finite"),
        (lambda: reference.mean_activation(np.ones(3)), "`activations` must have shape"),
        (
            lambda: reference.mean_activation(np.ones((2, 5, 3)), [True]),
            r"^`mask` must have the shape .* last axis, \(2, 5\). Received \(1,\).$",
        ),
        (
            lambda: reference.mean_activation(np.ones((1, 3)), [False]),
            "^`mask` must leave at least one position. Received all false.$",
        ),
        (
            lambda: reference.mean_activation_of_chunks([]),
            "^`chunks` must hold at least one chunk. Received none.$",
        ),
        (lambda: reference.mean_activation_of_chunks([np.ones(3)]), "^`chunks` must have shape"),
        (lambda: reference.reconstruction_cost(np.ones(3), np.ones(3)), "^`y` must have the shape"),
        (lambda: reference.reconstruction_cost(np.ones((0, 2)), np.ones((0, 2))), "^`y` must have"),
        (lambda: reference.maximally_exciting_inputs([[1.0, 0.0]]), "`kernel`.*Unit 1 has none"),
        (
            lambda: reference.mean_activation_of_chunks([np.ones((1, 2)), np.ones((1, 3))]),
            "`chunks` must all have 2 units",
        ),
        (
            lambda: reference.mean_activation_of_chunks([np.ones((1, 3)), np.ones((1, 2))]),
            "`chunks` must all have 3 units. Received one with 2",
        ),
        (
            lambda: reference.extended_kl_divergence(0.5, [0.5, np.nan], 0.1),
            "`rho_hat` must hold numbers. Received nan",
        ),
        (
            lambda: reference.extended_kl_divergence_derivative(0.5, [0.5, np.nan], 0.1),
            "`rho_hat` must hold numbers. Received nan",
        ),
        (
            # Each delta is a number; their sum over the samples is none.
            lambda: reference.backpropagate(
                reference.Parameters([[[1.0]], [[3.0]]], [[0.0], [0.0]]),
                [[0.0], [0.0]],
                y=[[1e308], [1e308]],
                activation="linear",
                rho=0.5,
                beta=0.0,
                weight_decay=0.0,
            ),
            "the gradient is not finite in float64",
        ),
        (
            lambda: reference.running_average([0.5], [0.5], 1.0),
            r"`momentum` must lie in \[0.0, 1.0\)",
        ),
        (
            lambda: reference.running_average(None, [0.5], 1.0),
            r"`momentum` must lie in \[0.0, 1.0\)",
        ),
        (lambda: reference.running_average([0.5], [0.5, 0.5], 0.5), "`previous`"),
        (lambda: reference.orthogonal(np.ones((1, 3))), "`weights` must have at least two rows"),
        (lambda: reference.orthogonal(np.ones((3, 3)), 0.1, "both"), "`mode`"),
        (lambda: reference.maximally_exciting_inputs(np.zeros((2, 1))), "`kernel`.*Unit 0"),
        (lambda: reference.reconstruction_cost(np.ones((1, 2)), np.ones((1, 3))), "`y`"),
        (
            lambda: reference.reconstruction_with_bounds([[1.0]], [[0.0]], summation="pairs"),
            "`summation` must be one of.*'pairs'",
        ),
        (lambda: precision_named("float8"), "`precision` must be one of.*'float8'"),
        (lambda: precision_named(["float32"]), "`precision` must be one of"),  # type: ignore[arg-type]
        (lambda: reference.Bounded(np.ones(2), [0.5, -1.0]), "`bound` must not be negative.*-1.0"),
        (lambda: reference.maximally_exciting_inputs(np.ones((2, 0))), "`kernel` must hold"),
        (lambda: reference.maximally_exciting_inputs(np.ones((0, 2))), "`kernel` must hold"),
        (lambda: reference.orthogonal(np.ones((2, 0))), "`weights` must hold a number"),
        (lambda: reference.running_average(None, [], 0.5), "`batch_mean` must hold"),
        (
            lambda: reference.reconstruction_cost(np.ones((2, 0)), np.ones((2, 0))),
            "`y` must have the shape of `output`",
        ),
        (lambda: reference.unpack([], PARAMETERS), "`vector` must have 17 elements. Received 0"),
        (lambda: reference.forward(PARAMETERS, np.ones((0, 3))), "`x` must have shape"),
        (
            lambda: reference.cost_and_gradient_with_bounds(PARAMETERS, X, y=X[:1], **GOOD),
            r"`y` must have the shape of the output, \(4, 3\). Received \(1, 3\)",
        ),
        (
            lambda: reference.cost_and_gradient_with_bounds(
                PARAMETERS, X, activation="tanh", from_logits=True, **GOOD
            ),
            '`activation` must be "sigmoid" where `from_logits`',
        ),
        (
            lambda: reference.gradient_descent_with_bounds(
                PARAMETERS, X, steps=-1, learning_rate=0.1, **GOOD
            ),
            "`steps` must be an integer ≥ 0. Received -1",
        ),
        (
            lambda: reference.gradient_descent_with_bounds(
                PARAMETERS, X, steps=1, learning_rate=-0.1, **GOOD
            ),
            "`learning_rate`",
        ),
        (
            lambda: reference.numerical_gradient(lambda theta: 0.0, [1.0], 0.0),
            r"`epsilon` must lie in \(0.0, inf\)",
        ),
        (lambda: reference.l1([np.inf]), "`weights` must be finite"),
        (lambda: reference.l2([1.0], float("inf")), r"`factor` must lie in \(-inf, inf\)"),
        (
            lambda: reference.usage(np.ones(2), reference.Bounded(np.ones(3), np.ones(3))),
            r"^`actual` must have shape \(3,\). Received \(2,\).$",
        ),
    ],
)
def test_value_errors_name_the_argument(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Good arguments of every function, by name; and which of them must be finite, or of one rank.
A = np.array([[0.2, 0.3], [0.4, 0.5]])
CALLS: dict[str, tuple[Any, dict[str, Any], dict[str, int | None]]] = {
    # name: (function, good arguments, {array that must be finite: its rank, or None for any})
    "kl_divergence": (reference.kl_divergence, {"rho": 0.5, "rho_hat": A}, {}),
    "kl_divergence_derivative": (
        reference.kl_divergence_derivative,
        {"rho": 0.5, "rho_hat": A},
        {},
    ),
    "extended_kl_divergence": (
        reference.extended_kl_divergence,
        {"rho": 0.5, "rho_hat": A, "epsilon": 0.1},
        {},
    ),
    "extended_kl_divergence_derivative": (
        reference.extended_kl_divergence_derivative,
        {"rho": 0.5, "rho_hat": A, "epsilon": 0.1},
        {},
    ),
    "kl_divergence_from_logits": (
        reference.kl_divergence_from_logits,
        {"rho": 0.5, "logits": A},
        {"logits": None},
    ),
    "kl_divergence_from_logits_derivative": (
        reference.kl_divergence_from_logits_derivative,
        {"rho": 0.5, "logits": A},
        {"logits": None},
    ),
    "sigmoid": (reference.sigmoid, {"z": A}, {}),
    "sigmoid_derivative": (reference.activations.sigmoid_derivative, {"z": A}, {}),
    "log_sigmoid": (reference.log_sigmoid, {"z": A}, {}),
    "tanh": (reference.tanh, {"z": A}, {}),
    "tanh_derivative": (reference.activations.tanh_derivative, {"z": A}, {}),
    "relu": (reference.relu, {"z": A}, {}),
    "relu_derivative": (reference.activations.relu_derivative, {"z": A}, {}),
    "linear": (reference.linear, {"z": A}, {}),
    "linear_derivative": (reference.activations.linear_derivative, {"z": A}, {}),
    "mean_activation": (reference.mean_activation, {"activations": A}, {"activations": None}),
    "running_average": (
        reference.running_average,
        {"previous": A[0], "batch_mean": A[1], "momentum": 0.5},
        {"previous": 1, "batch_mean": 1},
    ),
    "forward": (reference.forward, {"x": X}, {"x": 2}),
    "maximally_exciting_inputs": (
        reference.maximally_exciting_inputs,
        {"kernel": A},
        {"kernel": 2},
    ),
    "unpack": (reference.unpack, {"vector": reference.pack(PARAMETERS)}, {"vector": 1}),
    "reconstruction_cost": (
        reference.reconstruction_cost,
        {"output": A, "y": A},
        {"output": None, "y": None},
    ),
    "weight_decay_cost": (reference.weight_decay_cost, {"weight_decay": 0.1}, {}),
    "sparsity_cost": (
        reference.sparsity_cost,
        {"activations": A, "rho": 0.5, "beta": 1.0, "epsilon": 0.1},
        {"activations": None},
    ),
    "sparsity_cost_from_logits": (
        reference.sparsity_cost_from_logits,
        {"logits": A, "rho": 0.5, "beta": 1.0},
        {"logits": None},
    ),
    "sparse_autoencoder_cost": (
        reference.sparse_autoencoder_cost,
        {"x": X, "y": X, **GOOD, "epsilon": 0.01},
        {"x": 2, "y": None},
    ),
    "backpropagate": (
        reference.backpropagate,
        {"x": X, "y": X, **GOOD, "epsilon": 0.01},
        {"x": 2, "y": 2},
    ),
    "numerical_gradient": (reference.numerical_gradient, {"theta": A[0]}, {"theta": 1}),
    "l1": (reference.l1, {"weights": A, "factor": 0.1}, {"weights": None}),
    "l1_gradient": (
        reference.l1_gradient,
        {"weights": A, "factor": 0.1},
        {"weights": None},
    ),
    "l2": (reference.l2, {"weights": A, "factor": 0.1}, {"weights": None}),
    "l2_gradient": (
        reference.l2_gradient,
        {"weights": A, "factor": 0.1},
        {"weights": None},
    ),
    "l1_l2": (
        reference.l1_l2,
        {"weights": A, "l1_factor": 0.1, "l2_factor": 0.1},
        {"weights": None},
    ),
    "orthogonal": (reference.orthogonal, {"weights": A, "factor": 0.1}, {"weights": 2}),
    "orthogonal_gradient": (
        reference.orthogonal_gradient,
        {"weights": A, "factor": 0.1},
        {"weights": 2},
    ),
    "kl_sparsity": (
        reference.kl_sparsity,
        {"activations": A, "rho": 0.5, "beta": 1.0, "epsilon": 0.1},
        {"activations": None},
    ),
    "kl_sparsity_gradient": (
        reference.kl_sparsity_gradient,
        {"activations": A, "rho": 0.5, "beta": 1.0, "epsilon": 0.1},
        {"activations": None},
    ),
}
CALLS["l1_l2_gradient"] = (reference.l1_l2_gradient, *CALLS["l1_l2"][1:])
CALLS["l1_l2_with_bounds"] = (reference.l1_l2_with_bounds, *CALLS["l1_l2"][1:])
CALLS["orthogonal_with_bounds"] = (reference.orthogonal_with_bounds, *CALLS["orthogonal"][1:])
CALLS["reconstruction_with_bounds"] = (
    reference.reconstruction_with_bounds,
    *CALLS["reconstruction_cost"][1:],
)
CALLS["kl_sparsity_with_bounds"] = (
    reference.kl_sparsity_with_bounds,
    *CALLS["kl_sparsity"][1:],
)
CALLS["cost_and_gradient_with_bounds"] = (
    reference.cost_and_gradient_with_bounds,
    *CALLS["backpropagate"][1:],
)
CALLS["sparse_autoencoder_gradient"] = (
    reference.sparse_autoencoder_gradient,
    *CALLS["backpropagate"][1:],
)
CALLS["gradient_descent_with_bounds"] = (
    lambda *network, **arguments: reference.gradient_descent_with_bounds(
        *network, steps=1, **arguments
    ),
    {**CALLS["backpropagate"][1], "learning_rate": 0.1},
    CALLS["backpropagate"][2],
)
CALLS["numerical_gradient"][1]["epsilon"] = 1e-4
# These say what is wrong in other ways, tested apart, or cannot be wrong.
OTHERS = {"equations", "initialise", "mean_activation_of_chunks", "pack", "resolution", "usage"}
FIRST_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "forward": (PARAMETERS,),
    "weight_decay_cost": (PARAMETERS,),
    "sparse_autoencoder_cost": (PARAMETERS,),
    "backpropagate": (PARAMETERS,),
    "sparse_autoencoder_gradient": (PARAMETERS,),
    "cost_and_gradient_with_bounds": (PARAMETERS,),
    "gradient_descent_with_bounds": (PARAMETERS,),
    "numerical_gradient": (lambda theta: 0.0,),
}


def called(name: str, arguments: dict[str, Any]) -> Any:
    function = CALLS[name][0]
    if name == "unpack":
        return function(arguments["vector"], PARAMETERS)
    return function(*FIRST_ARGUMENTS.get(name, ()), **arguments)


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_of_every_function_is_checked_by_its_name(name: str) -> None:
    _, good, finite = CALLS[name]
    called(name, good)
    for argument, value in good.items():
        quoted = f"^`{argument}` must"
        with pytest.raises(TypeError, match=quoted):
            called(name, {**good, argument: "word"})
        with pytest.raises(TypeError, match=quoted):
            called(name, {**good, argument: np.asarray(value) * 1j})
        if argument in finite:
            broken = np.array(value)
            broken.flat[-1] = np.inf
            with pytest.raises(ValueError, match=f"{quoted} be finite. Received inf"):
                called(name, {**good, argument: broken})
            if finite[argument] is not None:
                with pytest.raises(ValueError, match=f"{quoted} have {finite[argument]} dimension"):
                    called(name, {**good, argument: np.asarray(value)[None]})
        broken = np.array(value, dtype=np.float64)
        broken.flat[-1] = np.nan
        with pytest.raises(ValueError, match=quoted):
            called(name, {**good, argument: broken})


def test_every_function_is_called_with_bad_arguments() -> None:
    functions = {name for name in reference.__all__ if callable(getattr(reference, name))}
    functions = {name for name in functions if inspect.isfunction(getattr(reference, name))}
    assert functions - OTHERS <= set(CALLS)


MASKED: dict[str, Any] = {
    "mean_activation": lambda a, mask: reference.mean_activation(a, mask),
    "sparsity_cost": lambda a, mask: reference.sparsity_cost(a, 0.1, 1.0, mask=mask),
    "kl_sparsity": lambda a, mask: reference.kl_sparsity(a, 0.1, 1.0, mask=mask),
    "kl_sparsity_gradient": lambda a, mask: reference.kl_sparsity_gradient(a, 0.1, 1.0, mask=mask),
    "kl_sparsity_with_bounds": lambda a, mask: reference.kl_sparsity_with_bounds(
        a, 0.1, 1.0, mask=mask
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_every_function_of_a_mask_says_what_is_wrong_with_it(name: str) -> None:
    function = MASKED[name]
    a = np.full((2, 3, 4), 0.5)
    function(a, np.ones((2, 3)))
    shape = r"^`mask` must have the shape of `activations` without its last axis, \(2, 3\)"
    # Transposed, flat, with the units, of one axis only, of nothing: their sizes may well agree.
    for wrong in ((3, 2), (6,), (2, 3, 1), (2, 3, 4), (2,), (3,), (1, 6), (2, 1), (1, 3), ()):
        with pytest.raises(ValueError, match=shape):
            function(a, np.ones(wrong))
    with pytest.raises(ValueError, match=r"\(4, 4\). Received \(4,\)"):
        function(np.full((4, 4, 4), 0.5), np.ones(4, bool))
    with pytest.raises(ValueError, match=r"^`mask` must leave at least one position"):
        function(a, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^`mask` must hold numbers. Received nan"):
        function(a, np.full((2, 3), np.nan))
    for wrong_type in (np.full((2, 3), "valid"), np.ones((2, 3), complex), [[None] * 3] * 2):
        with pytest.raises(TypeError, match=r"^`mask` must be an array of real numbers"):
            function(a, wrong_type)
    with pytest.raises(TypeError, match=r"^`mask` must be an array that NumPy can read"):
        function(a, [[True, True, True], [True]])


EMPTY: dict[str, Any] = {
    "activations": (
        reference.mean_activation,
        lambda a: reference.sparsity_cost(a, 0.1, 1.0),
        lambda a: reference.sparsity_cost(a, 0.1, 0.0),
        lambda a: reference.kl_sparsity_gradient(a, 0.1, 1.0),
        lambda a: reference.kl_sparsity_with_bounds(a, 0.1, 1.0),
        lambda a: reference.kl_sparsity_with_bounds(a, 0.1, 1.0, from_logits=True),
        lambda a: reference.kl_sparsity_with_bounds(a, 0.1, 1.0, mask=np.ones(a.shape[:-1])),
    ),
    "chunks": (
        lambda a: reference.mean_activation_of_chunks([a]),
        lambda a: reference.mean_activation_of_chunks([np.ones((2, 3)), a]),
        lambda a: reference.mean_activation_of_chunks(a),
    ),
    "logits": (
        lambda a: reference.kl_divergence_from_logits(0.1, a),
        lambda a: reference.kl_divergence_from_logits_derivative(0.1, a),
        lambda a: reference.sparsity_cost_from_logits(a, 0.1, 1.0),
    ),
    "x": (
        lambda a: cost(x=a),
        lambda a: reference.sparse_autoencoder_gradient(PARAMETERS, a, **GOOD),
        lambda a: reference.cost_and_gradient_with_bounds(PARAMETERS, a, **GOOD),
        lambda a: reference.gradient_descent_with_bounds(
            PARAMETERS, a, steps=1, learning_rate=0.1, **GOOD
        ),
    ),
    "y": (
        lambda a: reference.reconstruction_cost(a, a),
        lambda a: reference.reconstruction_with_bounds(a, a),
        lambda a: cost(y=a),
        lambda a: reference.cost_and_gradient_with_bounds(PARAMETERS, X, y=a, **GOOD),
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("argument", EMPTY)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), ()])
def test_nothing_is_no_batch(argument: str, shape: tuple[int, ...]) -> None:
    for function in EMPTY[argument]:
        if not shape and argument == "chunks":
            with pytest.raises(TypeError):
                reference.mean_activation_of_chunks(np.zeros(shape))
            continue
        with pytest.raises(ValueError, match=f"^`{argument}` must"):
            function(np.zeros(shape))


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_infinite_slope_is_said_of_epsilon(symmetric: bool) -> None:
    """A dead or saturated unit and ε = 0: not the kernels are wrong."""
    activation, bias = ("tanh", 1e3) if symmetric else ("sigmoid", 1e4)
    arguments: dict[str, Any] = {**GOOD, "activation": activation, "symmetric": symmetric}
    for sign, mean in ((-1.0, "0.0"), (1.0, "1.0")):
        parameters = reference.Parameters(PARAMETERS.kernels, [[0.0, sign * bias], np.zeros(3)])
        message = rf"^`epsilon` must be greater than 0 .* {mean} in unit 1 of layer 0.$"
        with pytest.raises(ValueError, match=message):
            reference.sparse_autoencoder_gradient(parameters, X, **arguments)
        gradient = reference.sparse_autoencoder_gradient(parameters, X, **arguments, epsilon=1e-3)
        assert np.all(np.isfinite(reference.pack(gradient)))
        # The gradient by the activations is infinite, and may be said so; masked, it is 0.
        a = np.array([[0.5, float(mean)], [0.5, float(mean)]])
        slopes = reference.kl_sparsity_gradient(a, 0.1, 1.0, mask=[True, False])
        assert slopes[0].tolist() == [slopes[0, 0], sign * np.inf]
        assert slopes[1].tolist() == [0.0, 0.0]


def test_a_gradient_that_overflows_is_said_of_the_input() -> None:
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"^`x` and `parameters` must"):
        reference.sparse_autoencoder_gradient(
            PARAMETERS, X * 1e200, activation="linear", epsilon=0.01, **GOOD
        )


def test_scalars_and_flags_of_any_library() -> None:
    """Zero-dimensional arrays and NumPy's own scalars and truth values count as Python's."""
    plain: dict[str, Any] = {
        "rho": 0.125,
        "beta": 2.0,
        "weight_decay": 0.5,
        "epsilon": 0.0625,
        "tied_decay": 2,
        "symmetric": True,
    }
    tied = reference.Parameters(PARAMETERS.kernels[:1], PARAMETERS.biases, tied=True)
    expected = reference.sparse_autoencoder_cost(tied, X, **plain)
    for kind in (np.asarray, lambda v: np.asarray(v)[()], lambda v: np.float32(v)):
        changed = {
            name: kind(value) if name not in ("tied_decay", "symmetric") else np.asarray(value)
            for name, value in plain.items()
        }
        assert reference.sparse_autoencoder_cost(tied, X, **changed) == expected
        bounded = reference.cost_and_gradient_with_bounds(tied, X, **changed).cost
        assert abs(bounded.total.value - expected.total) <= bounded.total.bound
    for true in (np.True_, np.array(True)):
        flagged = reference.Parameters(PARAMETERS.kernels[:1], PARAMETERS.biases, tied=true)
        assert flagged.tied is True
        assert reference.initialise((3, 2, 3), np.int64(0), tied=true).tied is True
        assert reference.sparsity_cost(X, 0.1, 1.0, symmetric=true) == reference.sparsity_cost(
            X, 0.1, 1.0, symmetric=True
        )
        value, _ = reference.kl_sparsity_with_bounds(X, 0.1, 1.0, from_logits=true)
        assert value.value == reference.sparsity_cost_from_logits(X, 0.1, 1.0)
    assert reference.Parameters(PARAMETERS.kernels, PARAMETERS.biases, tied=np.False_).tied is False
    assert reference.initialise((np.int64(3), np.array(2)), 0).sizes == (3, 2)
    with pytest.raises(TypeError, match=r"^`sizes` must be an integer"):
        reference.initialise((True, 2), 0)
    with pytest.raises(TypeError, match=r"^`tied` must be True or False. Received 'yes'"):
        reference.initialise((3, 2, 3), 0, tied="yes")  # type: ignore[arg-type]
    for wrong in (np.bool_(True), np.array(True), np.array([0.5]), [0.5], None, 0.5j, "0.5"):
        with pytest.raises(TypeError, match=r"^`rho` must be a number"):
            reference.kl_divergence(wrong, 0.5)
