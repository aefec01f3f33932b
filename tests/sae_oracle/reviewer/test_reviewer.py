"""The reviewer names every mistake of the corpus and accuses nothing that is right."""

from __future__ import annotations

import importlib
import inspect
import re
import sys

import keras
import numpy as np
import pytest

import keras_impl
from keras_impl.backends.keras_internals import keras_divides_activity_by_batch
from sae_oracle.catalogue import BY_IDENTIFIER, MISTAKES, as_markdown
from sae_oracle.reviewer import candidates, check_penalty, review, source
from sae_oracle.reviewer.loading import load
from sae_oracle.reviewer.target import CouldNotReviewError, resolve
from tests.sae_oracle.reviewer.corpus import costs, regularizers
from tests.sae_oracle.reviewer.corpus.cases import CASES, EXAMPLES, RIGHT, judged, listed, runs_on
from tests.sae_oracle.reviewer.report import AUDITED, audit_of

BACKEND = keras.config.backend()

# Every case on torch; on the other backends every eighth, and what is theirs alone.
# `python -m tests.sae_oracle.reviewer.report` runs every case on every backend.
CHOSEN = [
    case
    for position, case in enumerate(CASES)
    if runs_on(case, BACKEND) and (BACKEND == "torch" or case.backends or position % 8 == 0)
]


def group_of(case) -> str:
    """Right, or the hundreds of its first mistake: a test a case would cost more in set-up."""
    if not case.expected:
        return "right"
    return min(min(names) for names in case.expected)[:4] + "xx"


GROUPS = sorted({group_of(case) for case in CHOSEN})


@pytest.mark.parametrize("group", GROUPS)
def test_every_mistake_is_named_and_nothing_else(group: str) -> None:
    failures = []
    for case in CHOSEN:
        if group_of(case) != group:
            continue
        review = keras_impl.review(case.thing, **case.options)
        judgement = judged(case, review.identifiers)
        if not judgement.named or judgement.accused or review.conforms != (case in RIGHT):
            expected = " and ".join("/".join(sorted(names)) for names in case.expected)
            failures.append(f"{case.name}: expected {expected or 'nothing'}\n{review}")
    assert not failures, "\n\n".join(failures)


@pytest.mark.only_backends("torch")
def test_a_file_called_like_another_module_does_not_replace_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("import helper_of_mine\nMine = helper_of_mine.value\n")
    (tmp_path / "helper_of_mine.py").write_text("value = 3\n")
    assert load(f"{tmp_path / 'colorsys.py'}:Mine") == 3
    assert importlib.import_module("colorsys").rgb_to_hsv
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CouldNotReviewError, match=r"A file is reviewed as colorsys\.py:Mine"):
        load("colorsys:Mine")
    assert load("helper_of_mine:value") == 3


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize(
    "thing",
    [
        lambda: keras_impl.SparseAutoencoder((4, 3), rho=[0.1, 0.2], seed=0),
        lambda: keras_impl.SparseAutoencoder((4, 3), beta=[3.0, 1.0], seed=0),
        lambda: keras_impl.SparseAutoencoder(3, rho=[[0.1, 0.2, 0.3]], seed=0),
        lambda: keras_impl.KLSparsity([0.1, 0.2, 0.3]),
        lambda: keras_impl.KLSparsityRegularizer([0.1, 0.2, 0.3]),
    ],
)
def test_several_targets_are_accused_of_nothing(thing) -> None:
    found = review(thing())
    assert "ρ" in found.reason or "the sum of the penalties of its layers" in found.checks
    assert not found.findings


@pytest.mark.only_backends("torch")
def test_the_corpus_holds_every_mistake_of_the_catalogue() -> None:
    expected = {name for case in CASES for names in case.expected for name in names}
    assert expected == set(BY_IDENTIFIER)


@pytest.mark.only_backends("torch")
def test_every_implementation_of_the_corpus_is_reviewed() -> None:
    assert (
        listed()
        == {
            getattr(case.thing, "__name__", "") for case in CASES if not isinstance(case.thing, str)
        }
        & listed()
    )


@pytest.mark.only_backends("torch")
def test_identifiers_are_unique_and_the_documentation_is_that_of_the_code() -> None:
    assert len(BY_IDENTIFIER) == len(MISTAKES)
    page = (EXAMPLES.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "python -m tests.sae_oracle.reviewer.report --write"


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize(
    ("page", "printed", "name"),
    [
        ("docs/review.md", "well-known", "the well-known regularizer"),
        ("docs/review.md", "tied", "the tied layer transposed at build"),
        ("docs/review.md", "its-autoencoder", "its autoencoder"),
    ],
)
def test_the_printed_reviews_are_those_of_the_corpus(page: str, printed: str, name: str) -> None:
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    block = text.split(f"<!-- {printed}: begin -->")[1].split(f"<!-- {printed}: end -->")[0]
    identifiers = tuple(dict.fromkeys(re.findall(r"SAE\d{3}", block)))
    (case,) = (case for case in CASES if case.name == name)
    judgement = judged(case, identifiers)
    assert judgement.named, "python -m tests.sae_oracle.reviewer.report --write"
    assert not judgement.accused, "python -m tests.sae_oracle.reviewer.report --write"


@pytest.mark.only_backends("torch")
def test_the_confusion_table_is_of_this_corpus_and_without_a_miss() -> None:
    text = (EXAMPLES.parent / "docs" / "review.md").read_text(encoding="utf-8")
    for backend in ("jax", "tensorflow", "torch"):
        (row,) = re.findall(rf"^\| {backend} \|(.*)\|$", text, re.MULTILINE)
        right, accused, wrong, found, named, more = (int(cell) for cell in row.split("|"))
        cases = [case for case in CASES if runs_on(case, backend)]
        assert right == sum(case in RIGHT for case in cases), (
            "python -m tests.sae_oracle.reviewer.report"
        )
        assert wrong == len(cases) - right, "python -m tests.sae_oracle.reviewer.report --write"
        assert (accused, found, named, more) == (0, wrong, wrong, 0)


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize("name", AUDITED)
def test_the_audit_page_is_what_the_reviewer_finds_today(name: str) -> None:
    page = (EXAMPLES.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    assert audit_of(name) in page, "python -m tests.sae_oracle.reviewer.report --audit"


@pytest.mark.keras_eras
def test_who_divides_by_the_batch_is_observed() -> None:
    review = keras_impl.review(regularizers.NotMultiplied)
    if keras_divides_activity_by_batch():
        assert review.identifiers == ("SAE101",)
        assert keras.__version__ in review.findings[0].message
    else:
        assert review.conforms


def test_the_evidence_is_the_right_value_and_the_ratio() -> None:
    review = keras_impl.review(regularizers.MeanOverUnits, settings={"rho": 0.2, "beta": 2.0})
    (found,) = review.findings
    samples, units = (int(n) for n in found.evidence.input.split(" activations")[0].split(" × "))
    evidence = found.evidence
    assert float(evidence.ratio) == pytest.approx(1.0 / units, rel=1e-3)
    assert float(evidence.got) == pytest.approx(float(evidence.expected) / units, rel=1e-5)
    given = dict(part.split(" = ") for part in evidence.input.split(", ")[1:])
    (x,) = [p for p in check_penalty.probes("activations") if p.shape == (samples, units)][:1]
    right = candidates.right_value(x, float(given["ρ"]), float(given["β"]))
    assert float(evidence.expected) == pytest.approx(right, rel=1e-5)


@pytest.mark.only_backends("torch")
def test_half_a_percent_is_found_in_what_keeps_weights_small() -> None:
    """Of a gradient beside a right value, and of the value of what is nearly Keras's own."""

    @keras.saving.register_keras_serializable(package="review_corpus")
    class PartlyStopped(keras_impl.WeightDecay):
        def __call__(self, x):
            stopped = 0.99 * x + 0.01 * keras.ops.stop_gradient(x)
            return self.weight_decay / 2.0 * keras.ops.sum(x * stopped)

    @keras.saving.register_keras_serializable(package="review_corpus")
    class NearlyOrthogonal(keras.regularizers.OrthogonalRegularizer):
        def __call__(self, x):
            return 1.005 * super().__call__(x)

    assert keras_impl.review(PartlyStopped).identifiers == ("SAE304",)
    assert "SAE219" in keras_impl.review(NearlyOrthogonal).identifiers


@pytest.mark.only_backends("torch")
def test_a_configuration_that_has_the_default_loses_what_was_set() -> None:
    @keras.saving.register_keras_serializable(package="review_corpus")
    class OfDefaults(keras_impl.KLSparsityRegularizer):
        def get_config(self):
            return {**super().get_config(), "rho": 0.05}

    assert keras_impl.review(OfDefaults).identifiers == ("SAE701",)


@pytest.mark.only_backends("torch")
def test_where_two_explanations_fit_both_are_given() -> None:
    # A mean over units divides by the batch where the wrong axis makes units of the samples.
    @keras.saving.register_keras_serializable(package="review_corpus")
    class WrongAxisAndMean(regularizers.WrongAxis):
        def total(self, kl):
            return self.beta * keras.ops.mean(kl)

    review = keras_impl.review(WrongAxisAndMean)
    assert review.identifiers[0] == "SAE105"
    assert set(review.identifiers) == {"SAE105", "SAE101"}
    assert any("SAE105 and SAE111" in other for other in review.findings[0].alternatives)


@pytest.mark.only_backends("torch")
def test_guesses_are_shown_and_what_is_said_is_not_guessed() -> None:
    guessed = keras_impl.review(regularizers.OtherNames)
    assert "ρ is `sparsity_level` (guessed from its name)" in guessed.guesses
    assert "β is `sparsity_weight` (guessed from its name)" in guessed.guesses
    told = keras_impl.review(regularizers.OtherNames, rho="sparsity_level", beta="sparsity_weight")
    assert told.guesses == ()
    exchanged = keras_impl.review(
        regularizers.OtherNames, rho="sparsity_weight", beta="sparsity_level"
    )
    assert not exchanged.conforms


@pytest.mark.only_backends("torch")
def test_a_value_finds_its_argument_and_may_stand_for_one() -> None:
    instance = regularizers.OtherNames(0.2, 4.0)
    target = resolve(instance, rho=0.2, beta=4.0)
    assert target.parameter["rho"] == "sparsity_level"
    assert target.parameter["beta"] == "sparsity_weight"

    def fixed(x):
        """The sparsity term, to be called by hand."""
        x = keras.ops.cast(x, "float32")
        return 3.0 * keras.ops.sum(regularizers.tangent_kl(0.1, keras.ops.mean(x, axis=0)))

    options = {"called_directly": True, "ignore": ("SAE702",)}
    assert keras_impl.review(fixed, rho=0.1, beta=3.0, **options).conforms
    assert not keras_impl.review(fixed, rho=0.2, beta=3.0, **options).conforms
    found = keras_impl.review(fixed, **options)
    assert "ρ = 0.1 (a number of the source)" in found.guesses
    assert found.conforms

    def without(x):
        return keras.ops.sum(keras.ops.square(x))

    assert "ρ" in keras_impl.review(without, **options).reason


@pytest.mark.only_backends("torch")
def test_what_hides_its_terms_is_not_said_to_conform() -> None:
    class OwnStep(costs.OwnLoss):
        def train_step(self, data):
            return {}

    assert "train_step" in keras_impl.review(OwnStep).reason

    def penalised():
        return costs.autoencoder(lambda a: keras.ops.sum(keras.ops.abs(a)), (None, None))

    review = keras_impl.review(penalised)
    assert "ρ is not known" in review.reason
    assert not review.conforms


@pytest.mark.only_backends("torch")
def test_assert_conforms_says_everything() -> None:
    keras_impl.assert_conforms(regularizers.Right(0.05, 3.0), rho=0.05, beta=3.0)
    with pytest.raises(AssertionError) as raised:
        keras_impl.assert_conforms(regularizers.MeanOfAll)
    text = str(raised.value)
    for piece in ("SAE106", "expected", "EQ-RHO-HAT", "fix:", "ρ is `rho`"):
        assert piece in text
    keras_impl.assert_conforms(regularizers.MeanOfAll, ignore=("SAE106",))


@pytest.mark.only_backends("torch")
def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="`kind` must be one of"):
        keras_impl.review(regularizers.Right, kind="optimizer")
    with pytest.raises(ValueError, match="`ignore` takes identifiers"):
        keras_impl.review(regularizers.Right, ignore=("E501",))
    assert "no argument 'gamma'" in keras_impl.review(regularizers.Right, rho="gamma").reason
    wrong = keras_impl.review(regularizers.Right, settings={"gamma": 1.0})
    assert "no argument 'gamma'" in wrong.reason
    for location in ("nowhere.py:X", "json:nothing", "json"):
        assert keras_impl.review(location).reason


@pytest.mark.only_backends("torch")
def test_a_fault_of_the_reviewer_is_not_put_on_the_target(monkeypatch) -> None:
    monkeypatch.setattr(check_penalty, "as_number", None)
    found = keras_impl.review(regularizers.Right)
    assert found.findings == ()
    assert "the reviewer raised TypeError: 'NoneType' object is not callable" in found.reason


@pytest.mark.only_backends("torch")
@pytest.mark.parametrize(
    ("identifier", "excused", "accused"),
    [
        ("SAE101", "Keras divides it by the batch size.", "Sums are divided by the samples."),
        ("SAE103", "The value is multiplied by the batch size.", "A sum of means over the batch."),
        ("SAE111", "The weight of the mean KL over units.", "Mean activations of hidden units."),
        ("SAE112", "Measured in bits.", "A bit of sparsity."),
        ("SAE115", "β/2 times the sum.", "Safe in half precision."),
        ("SAE202", "Averaged over the features.", "Mean over samples of sums over features."),
        ("SAE211", "λ‖W‖², without the ½.", "λ/2 ‖W‖²."),
    ],
)
def test_only_words_about_the_scaling_excuse_it(
    identifier: str, excused: str, accused: str
) -> None:
    assert source.documents(excused, identifier)
    assert not source.documents(accused, identifier)


@pytest.mark.only_backends("torch")
def test_words_in_passing_do_not_change_what_is_expected() -> None:
    class Described(regularizers.Right):
        """The sparsity term; sigmoid, not tanh activations in [-1, 1], and never logits."""

    assert check_penalty.expected_input(resolve(Described)) == "activations"
    assert check_penalty.expected_input(resolve(regularizers.FromLogits)) == "logits"
    assert check_penalty.expected_input(resolve(regularizers.SymmetricTanh)) == "symmetric"


@pytest.mark.only_backends("torch")
def test_the_source_is_read_without_running_it() -> None:
    calls = {call.name: call for call in source.calls(regularizers.TensorFlowOnly)}
    assert calls["tf.reduce_mean"].package == "tensorflow"
    assert source.calls(regularizers.Right) == []
    assert "stop_gradient" in " ".join(source.cuts(regularizers.Stopped))


@pytest.mark.only_backends("torch")
def test_candidates_differentiate_by_an_imaginary_step() -> None:
    """Otherwise the gradient of a target would be held to a wrong number."""
    x = np.random.default_rng(0).uniform(0.05, 0.075, (4, 3))
    step = 1e-6
    for choice in (*candidates.MEANS, *candidates.DIVERGENCES):
        is_mean = choice in candidates.MEANS
        explanation = candidates.Explanation(
            0.0,
            (),
            "activations",
            choice if is_mean else candidates.RIGHT_MEAN,
            candidates.RIGHT_DIVERGENCE if is_mean else choice,
            lambda samples, units, beta: beta,
            "",
        )
        gradient = explanation.gradient(x, 0.04, 3.0)
        assert np.any(gradient)
        for index in ((0, 0), (3, 2)):
            moved = np.zeros_like(x)
            moved[index] = step
            high = explanation.value(x + moved, 0.04, 3.0)
            low = explanation.value(x - moved, 0.04, 3.0)
            # Rounding: 1e-15/step. Truncation: step² times the third derivative, below 1e5 here.
            difference = (high - low) / (2 * step)
            assert gradient[index] == pytest.approx(difference, rel=1e-6, abs=1e-7), choice.name


@pytest.mark.only_backends("torch")
def test_no_two_candidates_are_one() -> None:
    """On the probes every single mistake gives other numbers than every other one."""
    inputs = check_penalty.probes("activations")
    context = candidates.Context(divided=False)
    for mean in candidates.MEANS:
        for divergence in candidates.DIVERGENCES:
            if len(mean.mistakes + divergence.mistakes) != 1:
                continue
            made = candidates.Explanation(
                0.0, (), "activations", mean, divergence, lambda m, n, beta: beta, ""
            )
            observations = [
                candidates.Observation(x, rho, beta, float(np.real(made.value(x, rho, beta))))
                for x, rho, beta in zip(inputs, (0.05, 0.2, 0.35) * 3, (3.0, 0.7) * 5, strict=False)
            ]
            best = candidates.explain(observations, context)
            assert best[0].mistakes == mean.mistakes + divergence.mistakes
            assert len(best) == 1


def test_the_function_is_exported_and_its_package_has_another_name() -> None:
    assert inspect.isfunction(keras_impl.review)
    assert keras_impl.review.__module__ == "sae_oracle.reviewer"


@pytest.mark.inference
def test_without_gradients_the_values_are_still_reviewed() -> None:
    assert keras_impl.review(regularizers.Right).conforms
    assert "SAE106" in keras_impl.review(regularizers.MeanOfAll).identifiers
    assert keras_impl.review(costs.right_model).conforms
    assert keras_impl.review(keras_impl.DenseTied).conforms
