"""Every implementation of the corpus, with the findings that are right for it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

import keras_impl
from tests.sae_oracle.reviewer.corpus import costs, exercise, functions, layers, regularizers

EXAMPLES = Path(__file__).parents[4] / "examples"


@dataclass(frozen=True)
class Case:
    """An implementation and what a reviewer must say of it.

    Args:
        name: Its name.
        thing: What is reviewed.
        expected: The findings that name its mistakes, one of each set; none: it is right.
        consequences: Findings that follow from the mistake on some backends: true, not asked for.
        options: Those of `review`.
        backends: Where it is wrong, or can be reviewed at all; empty: everywhere.
    """

    name: str
    thing: Any
    expected: tuple[frozenset[str], ...] = ()
    consequences: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)
    backends: tuple[str, ...] = ()


def _case(thing: Any, expected: str = "", consequences: str = "", **more: Any) -> Case:
    name = more.pop("name", None) or getattr(thing, "__name__", type(thing).__name__)
    backends = more.pop("backends", ())
    return Case(
        name,
        thing,
        tuple(frozenset(name.split("/")) for name in expected.split()),
        frozenset(consequences.split()),
        more,
        backends,
    )


# What torch and JAX compute is imported where they are: the expected findings stand here too.
OF_TORCH = {
    "Penalty KeepsItsPenalty of_tensors TrainingLoss half_squared_error Autoencoder "
    "WideAutoencoder StepOfTraining": "",
    "WrongAxis scripted AutoencoderWithWrongAxis epoch": "SAE105",
    "SecondSigmoid": "SAE122",
    "AutoencoderWithPenalisedOutput": "SAE130",
    "Detached": "SAE301",
    "Clamped": "SAE402",
    "KeepsMeanOfAll of_the_model mean_of_all_for_each_unit": "SAE106",
    "training_loss_of_means": "SAE105 SAE201 SAE202",
    "ReturnsItsPenalty": "SAE111",
    "without_logarithm": "SAE119",
    "Convolutional": "",
    "ConvolutionalOverChannels": "SAE105",
}
PUBLISHED = {
    "AnsweredRegularizer": "SAE101 SAE401 SAE403 SAE501 SAE603 SAE701 SAE702",
    "without_parentheses": "SAE129",
    "clipped": "SAE402",
    "over_the_units": "SAE105 SAE401 SAE403",
    "WeightIsStored": "SAE113 SAE401 SAE403",
    "RunningAverage": "SAE301 SAE401 SAE403",
}
OF_JAX = {
    "right loss": "",
    "mean_of_all": "SAE106",
    "stopped": "SAE301",
    "loss_without_halves": "SAE201 SAE211",
}


def _cases_of(module: str, expected: dict[str, str], backends: tuple[str, ...]) -> list[Case]:
    place = f"tests.sae_oracle.reviewer.corpus.{module}"
    return [
        _case(f"{place}:{name}", findings, name=f"{module}.{name}", backends=backends)
        for names, findings in expected.items()
        for name in names.split()
    ]


OF_OTHERS = [
    *_cases_of("functions", functions.EXPECTED, ()),
    *_cases_of("exercise", exercise.EXPECTED, ()),
    *_cases_of("modules", OF_TORCH, ("torch",)),
    *_cases_of("published", PUBLISHED, ("torch",)),
    *_cases_of("jax_functions", OF_JAX, ("jax",)),
]

r, la, c = regularizers, layers, costs

RIGHT = (
    _case(r.Right),
    _case(r.Right(0.05, 2.0), name="an instance"),
    _case(r.OtherEdge),
    _case(r.OtherNames),
    _case(r.OtherNames, name="names that are said", rho="sparsity_level", beta="sparsity_weight"),
    _case(r.Guarded),
    _case(r.GuardedMore),
    _case(r.FromLogits),
    _case(r.CustomGradient),
    _case(r.DocumentedPerUnit),
    _case(r.DocumentedBits),
    _case(r.DocumentedForAddLoss),
    _case(r.NotMultiplied, name="NotMultiplied, called directly", called_directly=True),
    _case(r.DocumentedHalf),
    _case(r.ByProduct),
    _case(r.SymmetricTanh),
    _case(r.as_function),
    _case(la.RightLayer),
    _case(la.SigmoidOfItsOwn),
    _case(la.RunningAverage),
    _case(la.SparseDense),
    _case(la.SparseConvolution, backends=("jax", "tensorflow", "torch")),
    _case(la.right_regularizer_on_a_layer),
    _case(c.half_squared_error),
    _case(c.DocumentedMean),
    _case(c.Decay),
    _case(c.right_model),
    _case(c.model_with_two_penalties),
    _case(c.TiedModel),
    _case(c.OwnLoss, backends=("jax", "tensorflow", "torch")),
    # This project's own objects.
    _case(keras_impl.KLSparsityRegularizer),
    _case(keras_impl.KLSparsityRegularizer(0.05, 3.0, from_logits=True), name="ours, from logits"),
    _case(
        keras_impl.KLSparsityRegularizer(0.2, 3.0, symmetric=True, epsilon=1e-3),
        name="ours, symmetric",
    ),
    _case(
        keras_impl.KLSparsityRegularizer(0.2, 3.0, batch_scaling=False),
        name="ours, not multiplied",
        called_directly=True,
    ),
    _case(keras_impl.KLSparsity),
    _case(keras_impl.KLSparsity(momentum=0.9), name="ours, running average"),
    _case(keras_impl.KLSparsity(from_logits=True), name="ours, a layer of logits"),
    _case(keras_impl.ActivityPenalty(r.NotMultiplied(0.05, 3.0)), name="ours, any penalty"),
    _case(keras_impl.DenseTied),
    _case(keras_impl.WeightDecay),
    _case(keras_impl.HalfSquaredError),
    _case(keras_impl.SparseAutoencoder),
    _case(keras_impl.SparseAutoencoder(5, tied=True), name="ours, tied"),
    _case(keras_impl.SparseAutoencoder(5, tied=True, tied_decay=2), name="ours, tied, decay twice"),
    _case(keras_impl.SparseAutoencoder((5, 3), from_logits=True), name="ours, deep"),
    # Keras's own, against its documentation.
    _case(keras.regularizers.L1),
    _case(keras.regularizers.L2),
    _case(keras.regularizers.L1L2),
    _case(
        keras.regularizers.OrthogonalRegularizer,
        backends=("jax", "tensorflow", "torch"),
    ),
    # What Keras never calls.
    *(case for case in OF_OTHERS if not case.expected),
)

WRONG = (
    _case(r.NotMultiplied, "SAE101"),
    _case(r.DividesItself, "SAE101 SAE102"),
    _case(r.DividesItself, "SAE102", name="DividesItself, called directly", called_directly=True),
    _case(r.MultipliedTwice, "SAE103"),
    _case(r.Right, "SAE103", name="multiplied, called directly", called_directly=True),
    _case(r.SumForMean, "SAE104"),
    _case(r.WrongAxis, "SAE105"),
    _case(r.MeanOfAll, "SAE106"),
    _case(r.MeanOfKLs, "SAE107"),
    _case(r.Reversed, "SAE108"),
    _case(r.OnesHalf, "SAE109"),
    _case(r.ZerosHalf, "SAE110"),
    _case(r.MeanOverUnits, "SAE111"),
    _case(r.BaseTwo, "SAE112"),
    _case(r.BaseTen, "SAE112"),
    _case(r.BetaIgnored, "SAE113"),
    _case(r.BetaSquared, "SAE114"),
    _case(r.BetaTwice, "SAE114"),
    _case(r.HalfOfIt, "SAE115"),
    _case(r.RhoIgnored, "SAE116"),
    _case(r.CrossEntropy, "SAE117"),
    _case(r.WrongSign, "SAE118"),
    _case(r.SquaredDistance, "SAE119"),
    _case(r.Exchanged, "SAE120"),
    _case(r.LogitsAsActivations, "SAE121"),
    _case(r.SecondSigmoid, "SAE122"),
    _case(r.RescaledForNothing, "SAE123"),
    _case(r.TanhNotRescaled, "SAE124"),
    _case(r.PerReplica, "SAE125"),
    _case(r.LargeGuard, "SAE126"),
    _case(r.LargeClip, "SAE126 SAE402"),
    _case(r.AVector, "SAE127"),
    _case(r.AnotherFormula, "SAE199"),
    _case(r.Stopped, "SAE301"),
    _case(r.NumPyInside, "SAE301/SAE302", "SAE502"),
    _case(r.TwiceTheGradient, "SAE303"),
    _case(r.HalfStopped, "SAE304"),
    _case(r.NoGuard, "SAE401 SAE403"),
    _case(r.Clipped, "SAE402"),
    _case(r.NothingOutside, "SAE403"),
    _case(r.ReturnsHalf, "SAE501 SAE502"),
    _case(r.ComputesInHalf, "SAE502"),
    _case(r.RaisesInHalf, "SAE503"),
    _case(r.Raises, "SAE601"),
    _case(r.TensorFlowOnly, "SAE602", "SAE302"),
    _case(
        str(EXAMPLES / "well_known_regularizer.py:SparsityRegularizer"),
        "SAE101 SAE401 SAE403 SAE603 SAE701 SAE702",
        "SAE501 SAE503",
        name="the well-known regularizer",
        activation="relu",
        backends=("tensorflow",),
    ),
    _case(
        str(EXAMPLES / "well_known_regularizer.py:autoencoder"),
        "SAE101 SAE201 SAE202 SAE401 SAE403 SAE603 SAE701 SAE702",
        "SAE501 SAE503",
        name="its autoencoder",
        backends=("tensorflow",),
    ),
    _case(r.OfKeras1, "SAE603"),
    _case(r.KeepsState, "SAE604"),
    _case(r.StaticBatch, "SAE605", backends=("tensorflow",)),
    _case(r.NameOnlyConfig, "SAE701"),
    _case(r.NoConfig, "SAE701"),
    _case(r.HalfConfig, "SAE701"),
    _case(r.NotRegistered, "SAE702"),
    _case(r.OtherKeys, "SAE703"),
    # Two at once.
    _case(r.SumAndHalf, "SAE104 SAE109"),
    _case(r.WrongAxisAndBaseTwo, "SAE105 SAE112"),
    _case(r.MeanOverUnitsAndBetaSquared, "SAE111 SAE114"),
    _case(r.ReversedAndNotMultiplied, "SAE101 SAE108"),
    _case(r.AllAndNoBeta, "SAE106 SAE113"),
    _case(r.BaseTwoAndClipped, "SAE112 SAE402"),
    _case(r.StoppedAndMeanOfAll, "SAE106 SAE301"),
    # Layers.
    _case(la.MultipliedLayer, "SAE103"),
    _case(la.DividedLayer, "SAE102"),
    _case(
        keras_impl.ActivityPenalty(r.Right(0.05, 3.0)),
        "SAE103",
        name="an activity regularizer under add_loss",
    ),
    _case(la.MasksCounted, "SAE128"),
    _case(la.LayerWithWrongAxis, "SAE105"),
    _case(la.LayerWithoutGradient, "SAE301"),
    _case(la.SparseDenseOverUnits, "SAE105"),
    _case(
        la.SparseConvolutionOverChannels,
        "SAE105",
        backends=("jax", "tensorflow", "torch"),
    ),
    _case(la.ReluSparseDense, "SAE403"),
    # Tied layers. The tie is lost in clone_model whatever one does, unless one layer owns it.
    _case(la.OwnKernel, "SAE801"),
    _case(
        str(EXAMPLES / "transposed_at_build.py:DenseTied"),
        "SAE701 SAE702 SAE802",
        name="the tied layer transposed at build",
    ),
    _case(la.TransposedConstant, "SAE802"),
    _case(la.StoppedTie, "SAE803 SAE804"),
    _case(la.TransposedInCall, "SAE804"),
    _case(la.HiddenReference, "SAE804 SAE805"),
    _case(la.DecayedTwice, "SAE804 SAE806"),
    _case(la.NotTransposed, "SAE807"),
    _case(la.IgnoresItsRegularizer, "SAE804 SAE808"),
    # Losses and weight penalties.
    _case(keras.losses.MeanSquaredError, "SAE201 SAE202"),
    _case(c.mean_squared, "SAE201 SAE202"),
    _case(c.without_half, "SAE201"),
    _case(c.half_of_the_mean, "SAE202"),
    _case(c.summed_over_samples, "SAE203"),
    _case(c.norm_not_squared, "SAE204"),
    _case(c.cross_entropy, "SAE205"),
    _case(c.three_times, "SAE206"),
    _case(c.fourth_power, "SAE209"),
    _case(c.loss_without_gradient, "SAE301"),
    _case(c.DecayWithoutHalf, "SAE211"),
    _case(c.L2WithHalf, "SAE212"),
    _case(c.MeanDecay, "SAE217"),
    _case(c.AbsoluteDecay, "SAE218"),
    _case(c.CubicDecay, "SAE219"),
    # Models.
    _case(c.model_with_mse, "SAE201 SAE202"),
    _case(c.model_with_whole_lambda, "SAE211"),
    _case(c.model_with_decayed_biases, "SAE213"),
    _case(c.model_with_one_decay, "SAE214"),
    _case(c.model_with_wrong_axis, "SAE105"),
    _case(c.model_with_penalised_output, "SAE130"),
    _case(c.model_with_two_penalties_and_one_wrong, "SAE105"),
    _case(c.model_without_sparsity, "SAE113"),
    _case(c.relu_model, "SAE401 SAE403"),
    _case(c.model_with_clip_and_mse, "SAE201 SAE202 SAE211 SAE402"),
    _case(c.OwnLossWrong, "SAE105 SAE201 SAE202 SAE211", backends=("jax", "tensorflow", "torch")),
    _case(c.TiedModelTwice, "SAE215"),
    _case(c.TiedModelUndocumented, "SAE216"),
    # What Keras never calls.
    *(case for case in OF_OTHERS if case.expected),
)

CASES = RIGHT + WRONG


def listed() -> set[str]:
    """The names of every implementation in the corpus's modules."""
    found = set()
    for module in (regularizers, layers, costs):
        for name, member in vars(module).items():
            own = getattr(member, "__module__", "") == module.__name__
            if own and (inspect.isclass(member) or inspect.isfunction(member)):
                found.add(name)
    return found - {"keras_divides", "tangent_kl", "autoencoder", "_deep"}


def runs_on(case: Case, backend: str) -> bool:
    """Whether the case says anything about this backend."""
    return not case.backends or backend in case.backends


@dataclass(frozen=True)
class Judgement:
    """How good a review of a case is.

    Args:
        found: Whether anything was found.
        named: Whether every mistake was named.
        accused: What was said that is not true.
    """

    found: bool
    named: bool
    accused: frozenset[str]


def judged(case: Case, identifiers: tuple[str, ...]) -> Judgement:
    found = frozenset(identifiers)
    named = all(found & name for name in case.expected)
    right = case.consequences.union(*case.expected) if case.expected else case.consequences
    return Judgement(bool(found), named, found - right)
