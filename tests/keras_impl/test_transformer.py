"""`SparseAutoencoderTransformer`: what scikit-learn asks of it, and the oracle of its cost."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import reference
from keras_impl import SparseAutoencoder, SparseAutoencoderTransformer, fit_lbfgs
from sae_oracle.workers.oracle_bridge import oracle_arguments, to_parameters
from tests.asserting import inside
from tests.keras_impl.precision import as_numpy


def samples(count: int = 40, features: int = 5) -> Any:
    """Of float64, with a mean and a scale of their own, and one feature that is constant."""
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(count, features))
    x[:, 1] = 4.0
    return x


def transformer(**arguments: Any) -> SparseAutoencoderTransformer:
    defaults = {"n_components": 3, "rho": 0.1, "max_iter": 4, "random_state": 0}
    return SparseAutoencoderTransformer(**{**defaults, **arguments})


@contextmanager
def nothing_traced() -> Iterator[None]:
    """TensorFlow runs each step as it is written: a new shape costs nothing."""
    if keras.config.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.same_python
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks() -> None:
    """All pass; none is expected to fail."""
    with nothing_traced():
        found = check_estimator(transformer(max_iter=1, n_components=2), on_fail=None)
    failed = [f"{c['check_name']}: {c['exception']!r}" for c in found if c["status"] == "failed"]
    assert not failed, "\n".join(failed)
    passed = {c["check_name"] for c in found if c["status"] == "passed"}
    assert passed >= {
        "check_estimators_pickle",
        "check_fit_idempotent",
        "check_methods_sample_order_invariance",
        "check_transformer_preserve_dtypes",
    }


@pytest.mark.equation("EQ-COST", "EQ-FORWARD")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_it_learned_is_what_the_oracle_computes(precision: str) -> None:
    """The cost inside its bounds; codes and reconstructions; in the dtype of the data."""
    x = StandardScaler().fit_transform(samples()).astype(precision)
    for arguments in (
        {"weight_decay": 0.01},
        {"tied": True, "beta": 0.5},
        {"activation": "relu", "beta": 0.0},
    ):
        fitted = transformer(**arguments).fit(x)
        model = fitted.model_
        parameters = to_parameters(model)
        step = reference.cost_and_gradient_with_bounds(
            parameters, x, **oracle_arguments(model), precision=precision
        )
        for name in ("reconstruction", "weight_decay", "sparsity", "total"):
            inside(name, getattr(fitted.cost_, name), getattr(step.cost, name))
        expected = reference.forward(
            parameters, x, activation=model.activation, output_activation="linear"
        )
        code = fitted.transform(x)
        back = fitted.inverse_transform(code)
        assert code.dtype == back.dtype == precision
        # Each term of the 5 or 3 and the bias is rounded at most 16 times, relative to itself;
        # no activation is steeper than 1, and none that is bounded exceeds 1.
        eps = 16 * np.finfo(precision).eps
        first, last = np.abs(parameters.kernels[0]), np.abs(parameters.kernels[-1])
        of_code = eps * (np.abs(x) @ first + np.abs(parameters.biases[0]) + 1.0)
        assert np.all(np.abs(code - expected.hidden[0]) <= of_code)
        last = last.T if model.tied else last
        of_back = of_code @ last + eps * (np.abs(code) @ last + np.abs(parameters.biases[1]))
        assert np.all(np.abs(back - expected.output) <= of_back)
        assert np.array_equal(fitted.components_, as_numpy(model.kernels[0]).T)


def test_it_is_fit_lbfgs_of_a_sparse_autoencoder() -> None:
    x = StandardScaler().fit_transform(samples()).astype("float32")
    fitted = transformer(n_components=4, beta=0.5, max_iter=6, tol=1e-3, random_state=7).fit(x)
    model = SparseAutoencoder(
        4, rho=0.1, beta=0.5, weight_decay=1e-4, output_activation="linear", seed=7
    )
    history = fit_lbfgs(model, x, 6, verbose=False, gtol=1e-3)
    assert all(map(np.array_equal, fitted.model_.get_weights(), model.get_weights()))
    assert fitted.n_iter_ == len(history.epoch) == 6
    assert fitted.cost_.total == history.history["loss"][-1]
    # The tolerance ends it.
    assert transformer(max_iter=50, tol=1e3).fit(x).n_iter_ == 1


@pytest.mark.same_python
def test_first_weights_follow_the_random_state() -> None:
    x = samples()

    def code(state: Any) -> Any:
        return transformer(max_iter=1, random_state=state).fit_transform(x)

    assert np.array_equal(code(3), code(np.int64(3)))
    assert not np.array_equal(code(3), code(4))
    drawn = np.random.RandomState(0)
    first = code(drawn)
    assert not np.array_equal(first, code(drawn))
    assert np.array_equal(first, code(np.random.RandomState(0)))
    assert not np.array_equal(code(None), code(None))
    largest = 2**32 - 2
    assert np.isfinite(code(largest)).all()


def test_pickled_copied_and_cloned() -> None:
    """What comes back computes the same to the last bit, in float64 on JAX too."""
    x = samples()
    for data in (x, x.astype("float32")):
        fitted = transformer(tied=data is x).fit(data)
        code = fitted.transform(data)
        for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
            assert again.get_params() == fitted.get_params()
            assert np.array_equal(again.transform(data), code)
            assert np.array_equal(again.inverse_transform(code), fitted.inverse_transform(code))
            assert again.cost_.total == fitted.cost_.total
            assert np.array_equal(again.fit(data).transform(data), code)
    bare = clone(fitted)
    assert bare.get_params() == fitted.get_params()
    for call in (lambda: bare.transform(x), lambda: bare.inverse_transform(x[:, :3])):
        with pytest.raises(NotFittedError):
            call()
    assert not hasattr(bare, "components_")
    assert bare.set_params(rho=0.2, n_components=2).fit(x).transform(x).shape == (40, 2)


@pytest.mark.same_python
def test_in_a_pipeline_and_a_grid() -> None:
    x = samples()
    pipeline = make_pipeline(
        MinMaxScaler(), transformer(output_activation="sigmoid"), transformer(n_components=2)
    )
    code = pipeline.fit_transform(x)
    assert code.shape == (40, 2)
    assert pipeline.inverse_transform(code).shape == x.shape
    names = pipeline.get_feature_names_out()
    assert names.tolist() == ["sparseautoencodertransformer0", "sparseautoencodertransformer1"]
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), transformer(max_iter=1), LinearRegression()),
        {"sparseautoencodertransformer__rho": [0.1, 0.2]},
        cv=2,
    )
    assert grid.fit(x, x[:, 0]).best_params_["sparseautoencodertransformer__rho"] in (0.1, 0.2)


@pytest.mark.same_python
def test_few_samples_and_features_that_are_constant() -> None:
    for x in (samples(1), samples(2, 2), np.zeros((3, 2)), [[1, 2], [3, 4]]):
        fitted = transformer(n_components=7).fit(x)
        assert fitted.transform(x).shape == (len(x), 7)
        assert np.isfinite(fitted.inverse_transform(fitted.transform(x))).all()
        assert fitted.n_iter_ >= 1


X = samples(6, 3)

BAD_DATA: list[tuple[Any, type[Exception], str]] = [
    (np.where(np.eye(6, 3) > 0, np.nan, X), ValueError, "contains NaN"),
    (np.where(np.eye(6, 3) > 0, np.inf, X), ValueError, "contains infinity"),
    (X[0], ValueError, "Expected 2D array"),
    (X[:0], ValueError, "0 sample"),
    (X[:, :0], ValueError, "0 feature"),
    (X * 1j, ValueError, "Complex data not supported"),
    ([["a", "b"]], ValueError, "could not convert string to float"),
    (np.array([[object()]]), TypeError, "must be a string or a"),
    (sparse.csr_matrix(X), TypeError, "Sparse data was passed.*toarray"),
    (sparse.csr_array(X), TypeError, "Sparse data was passed.*toarray"),
]


@pytest.mark.same_python
@pytest.mark.parametrize(("bad", "error", "message"), BAD_DATA, ids=[row[2] for row in BAD_DATA])
def test_data_that_are_refused(bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        transformer().fit(bad)


@pytest.mark.same_python
def test_data_that_do_not_fit_to_what_was_learned() -> None:
    fitted = transformer(max_iter=1).fit(X)
    with pytest.raises(ValueError, match=r"has 2 features, but .* is expecting 3 features"):
        fitted.transform(X[:, :2])
    with pytest.raises(ValueError, match=r"column for each of 3 components.* \(6, 2\)"):
        fitted.inverse_transform(X[:, :2])
    for call in (fitted.transform, fitted.inverse_transform):
        with pytest.raises(ValueError, match="contains NaN"):
            call(np.full((1, 3), np.nan))
        with pytest.raises(TypeError, match="Sparse data was passed"):
            call(sparse.csr_matrix(X))


@pytest.mark.same_python
def test_an_output_that_cannot_reach_the_data_is_refused() -> None:
    for name, data, message in (
        ("sigmoid", X, r"values from -?[\d.]+ to [\d.]+, .*'sigmoid' reaches \(0, 1\) only"),
        ("tanh", X, r"\(-1, 1\) only"),
        ("relu", -np.ones((2, 2)), r"\(0, inf\) only"),
    ):
        with pytest.raises(ValueError, match=message + '.*output_activation="linear"'):
            transformer(output_activation=name).fit(data)
        transformer(output_activation=name, max_iter=1).fit(MinMaxScaler().fit_transform(data))


BAD_ARGUMENTS: list[tuple[str, Any, type[Exception]]] = [
    *(("n_components", bad, TypeError) for bad in (2.0, "3", None, True, [3])),
    *(("n_components", bad, ValueError) for bad in (0, -1, 2**70)),
    *(("rho", bad, ValueError) for bad in (0.0, 1.0, -1.0, np.nan)),
    *(("beta", bad, ValueError) for bad in (-1.0, np.inf)),
    ("beta", "x", TypeError),
    ("weight_decay", -1.0, ValueError),
    ("tied", 1, TypeError),
    *(("activation", bad, ValueError) for bad in ("swish", None)),
    *(("output_activation", bad, ValueError) for bad in ("softmax", None)),
    *(("max_iter", bad, ValueError) for bad in (0, -3)),
    ("max_iter", 2.5, TypeError),
    *(("tol", bad, ValueError) for bad in (-1.0, np.nan, np.inf)),
    ("tol", "small", TypeError),
    *(("random_state", bad, ValueError) for bad in (-1, 2**32 - 1, 2**70)),
    *(("random_state", bad, TypeError) for bad in (0.5, "x", True, np.random.default_rng(0))),
    ("verbose", "loud", TypeError),
]


@pytest.mark.same_python
@pytest.mark.parametrize(("name", "bad", "error"), BAD_ARGUMENTS)
def test_arguments_are_refused_by_fit_and_by_name(
    name: str, bad: Any, error: type[Exception]
) -> None:
    made = transformer(**{name: bad})  # scikit-learn's constructors check nothing
    with pytest.raises(error, match=f"`{name}` must"):
        made.fit(X)
    with pytest.raises(NotFittedError):
        made.transform(X)


@pytest.mark.same_python
def test_a_step_of_a_pipeline_prints_nothing_unless_it_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verbose in (None, True):
        asked = {} if verbose is None else {"verbose": verbose}
        SparseAutoencoderTransformer(2, max_iter=1, random_state=0, **asked).fit(X)
        assert bool(capsys.readouterr().out) == bool(verbose)


@pytest.mark.same_python
def test_names_of_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"], index=list("uvwxyz"))
    fitted = transformer(max_iter=1).set_output(transform="pandas").fit(frame)
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    code = fitted.transform(frame)
    assert code.columns.tolist() == [f"sparseautoencodertransformer{i}" for i in range(3)]
    assert code.index.tolist() == list("uvwxyz")
    assert fitted.inverse_transform(code).shape == (6, 3)
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(frame.rename(columns={"a": "d"}))
