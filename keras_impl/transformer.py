"""`SparseAutoencoderTransformer`: the sparse autoencoder as a step of a scikit-learn pipeline.

The only module that needs scikit-learn; `import keras_impl` does not import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_impl.backends.arrays import to_numpy
from keras_impl.backends.process import dtype_within
from keras_impl.exact.lbfgs import fit_lbfgs, full_cost_and_gradient
from keras_impl.models import SparseAutoencoder
from keras_impl.validation import cut, entries, integer, plain, real_number

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:  # not there, or before 1.6
    raise ImportError(
        "SparseAutoencoderTransformer needs scikit-learn 1.6 or newer: "
        f"`pip install 'scikit-learn>=1.6'` ({error})"
    ) from error

DTYPES = (np.float64, np.float32)
"""In which is computed; other data become the first."""

RANGES = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "linear": (-math.inf, math.inf),
}
"""What an output can come near to, by its activation."""

LARGEST_SEED = 2**32 - 2
"""Those of JAX have 32 bits, and the second kernel has the next one."""


class SparseAutoencoderTransformer(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Learns a sparse code of samples; for scikit-learn's pipelines.

    `fit` minimises the notes' cost of all samples (EQ-COST) by L-BFGS (`fit_lbfgs`), so that an
    integer `random_state` determines the result on a machine. `transform` returns the activations
    of the hidden units, `inverse_transform` the reconstruction from them. Everything is computed
    and returned in float32 if the training set is float32, else in float64, whatever Keras's
    `floatx` is. Arguments are checked by `fit`, as everywhere in scikit-learn.

    Data are dense, finite matrices, and nothing is rescaled: put a `StandardScaler` or a
    `MinMaxScaler` before it. Two of them, one after the other, are the notes' greedy stack. For
    minibatches, deep and masked models, or weights of samples use `SparseAutoencoder`.

    Source: CS294A lecture notes "Sparse autoencoder", §2 and §3.

    Args:
        n_components: Hidden units, 1 or more.
        rho: ρ, the sparsity parameter, inside (0, 1): a number, or one for each component.
        beta: β ≥ 0, the weight of the sparsity term.
        weight_decay: λ ≥ 0, of (λ/2)Σ‖W‖².
        tied: Whether the decoder uses the encoder's kernel transposed.
        activation: Of the hidden units: "sigmoid", "tanh", "relu" or "linear". For tanh ρ̂ leaves
            (0, 1) unless `symmetric` is set, which only `SparseAutoencoder` has.
        output_activation: Of the output: "linear", the linear decoder; or "sigmoid", as in the
            notes, for data in [0, 1]; or "tanh", "relu".
        max_iter: Iterations of L-BFGS at most.
        tol: L-BFGS ends where no component of the projected gradient is larger.
        random_state: Of the initial weights (EQ-INIT): an integer s is
            `SparseAutoencoder(seed=s)`; a `RandomState` is drawn from; `None`: other ones each
            time.
        verbose: Whether to show a progress bar with the terms of the cost.

    Attributes:
        model_: The `SparseAutoencoder`, with its weights. In float64 on JAX, call it where
            `jax_enable_x64` is set; the methods here need nothing.
        cost_: The `FullCost` of the training set: the three terms, and ρ̂.
        components_: (n_components, n_features), the encoder's kernel transposed: a row a unit.
        n_iter_: Iterations of L-BFGS.
        n_features_in_: Features of the training set.
        feature_names_in_: Their names, if X had names that are all text.

    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> x = np.random.default_rng(0).normal(size=(20, 4))
    >>> sparse = SparseAutoencoderTransformer(3, max_iter=5, random_state=0)
    >>> code = make_pipeline(StandardScaler(), sparse).fit_transform(x)
    >>> code.shape, sparse.inverse_transform(code).shape, sparse.n_iter_
    ((20, 3), (20, 4), 5)
    """

    def __init__(
        self,
        n_components: int = 25,
        *,
        rho: float | Sequence[float] | NDArray[Any] = 0.05,
        beta: float = 3.0,
        weight_decay: float = 1e-4,
        tied: bool = False,
        activation: str = "sigmoid",
        output_activation: str = "linear",
        max_iter: int = 400,
        tol: float = 1e-5,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.rho = rho
        self.beta = beta
        self.weight_decay = weight_decay
        self.tied = tied
        self.activation = activation
        self.output_activation = output_activation
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Learn the weights.

        Ctrl-C ends it with a warning and the best weights seen; the estimator is fitted then.

        Args:
            X: (n_samples, n_features): an array, a data frame, or nested lists.
            y: Ignored.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: If an argument of the constructor leaves its range, or X is
                sparse, is no matrix of finite numbers, or leaves the range of the output.
            FloatingPointError: If the cost or its gradient is not finite.
        """
        iterations = integer("max_iter", self.max_iter, low=1)
        gtol = real_number("tol", self.tol, low=0.0, high=math.inf, high_open=True)
        self._model()  # refuses what is wrong before the data are looked at
        X = validate_data(self, X, dtype=DTYPES)  # noqa: N806
        low, high = RANGES[self.output_activation]
        least, most = float(X.min()), float(X.max())
        if not low <= least <= most <= high:
            raise ValueError(
                f"X has values from {least:.4g} to {most:.4g}, and the output of "
                f"output_activation={self.output_activation!r} reaches ({low:g}, {high:g}) only: "
                'rescale the data, or use output_activation="linear".'
            )
        with dtype_within(X.dtype.name):
            model = self._model(dtype=X.dtype.name)
            history = fit_lbfgs(model, X, iterations, verbose=self.verbose, gtol=gtol)
            # As L-BFGS has it compiled already.
            self.cost_, _ = full_cost_and_gradient(model, X)
        self.model_ = model
        # There is none where the first weights are a minimum, and scikit-learn counts from 1.
        self.n_iter_ = max(1, len(history.epoch))
        return self

    def transform(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the activations of the hidden units (EQ-FORWARD).

        Args:
            X: (n_samples, n_features).

        Returns:
            (n_samples, n_components), in the dtype of the model.

        Raises:
            NotFittedError: Before `fit`.
            TypeError, ValueError: If X is not as in `fit`.
        """
        check_is_fitted(self)
        dtype = self.model_.compute_dtype
        X = validate_data(self, X, dtype=dtype, reset=False)  # noqa: N806
        with dtype_within(dtype):
            return to_numpy(self.model_.encode(X))

    def inverse_transform(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the reconstruction from activations of the hidden units.

        Args:
            X: (n_samples, n_components).

        Returns:
            (n_samples, n_features), in the dtype of the model.

        Raises:
            NotFittedError: Before `fit`.
            TypeError, ValueError: If X is sparse, or not a matrix of finite numbers with a column
                for each component.
        """
        check_is_fitted(self)
        dtype = self.model_.compute_dtype
        X = check_array(X, dtype=dtype, estimator=self, input_name="X")  # noqa: N806
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"X must have a column for each of {self._n_features_out} components. "
                f"Received shape {X.shape}."
            )
        with dtype_within(dtype):
            return to_numpy(self.model_.decode(X))

    @property
    def components_(self) -> NDArray[Any]:
        """The encoder's kernel transposed, (n_components, n_features)."""
        check_is_fitted(self)
        return to_numpy(self.model_.kernels[0]).T

    @property
    def _n_features_out(self) -> int:
        return int(self.model_.hidden_units[0])

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether `fit` has come to its end; scikit-learn asks."""
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [dtype.__name__ for dtype in DTYPES]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: of the model its arguments and its weights, for any backend."""
        state = dict(super().__getstate__())
        if "model_" in state:
            model = state["model_"]
            state["model_"] = model.get_config(), [to_numpy(weight) for weight in model.weights]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what `__getstate__` has returned."""
        state = dict(state)
        if "model_" in state:
            config, weights = state["model_"]
            with dtype_within(weights[0].dtype.name):
                model = SparseAutoencoder.from_config(config)
                model.build((None, weights[0].shape[0]))
                model.set_weights(weights)
            state["model_"] = model
        super().__setstate__(state)

    def _model(self, dtype: str | None = None) -> SparseAutoencoder:
        """Return a model with first weights of the arguments, which it checks."""
        if self.output_activation is None:
            raise ValueError(
                f"`output_activation` must be one of {tuple(RANGES)}. Received: "
                "output_activation=None"
            )
        return SparseAutoencoder(
            integer("n_components", self.n_components, low=1),
            rho=self.rho if entries(self.rho) is None else [self.rho],
            beta=self.beta,
            weight_decay=self.weight_decay,
            tied=self.tied,
            activation=self.activation,
            output_activation=self.output_activation,
            seed=None if dtype is None else self._seed(),
            dtype=dtype,
        )

    def _seed(self) -> int:
        """Return the seed of the model; what is drawn is drawn from scikit-learn's generator."""
        state = plain(self.random_state)
        if state is None or isinstance(state, np.random.RandomState):
            return int(check_random_state(state).randint(LARGEST_SEED, dtype=np.int64))
        try:
            seed = integer("random_state", state, low=0)
        except TypeError as error:
            raise TypeError(
                "`random_state` must be None, an integer or a numpy.random.RandomState. "
                f"Received: random_state={cut(self.random_state)}"
            ) from error
        if seed > LARGEST_SEED:
            raise ValueError(
                f"`random_state` must be an integer from 0 to {LARGEST_SEED}. "
                f"Received: random_state={seed}"
            )
        return seed
