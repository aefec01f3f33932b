"""Every mistake that the reviewer can name: its identifier, what it breaks, and the fix.

Identifiers are stable: one is never given to another mistake. The hundreds: 1 the sparsity term,
2 reconstruction and weight decay, 3 gradients, 4 the edges of the KL, 5 precision, 6 backends and
state, 7 saving, 8 tied weights. `docs/findings.md` is this list, written by
`python -m tests.sae_oracle.reviewer.report --write`.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

READINGS = ("activations", "means", "cost")
"""What a function's argument may be said to be."""

KINDS = ("regularizer", "layer", "loss", "model", *READINGS)
"""What a target may be said to be."""

NOTES = 'CS294A notes "Sparse autoencoder"'
KERAS_REGULARIZERS = "Keras documentation, Layer weight regularizers"
KERAS_SAVING = "Keras documentation, Serialization and saving, custom objects"
KERAS_LAYERS = "Keras documentation, Making new layers and models via subclassing"
KERAS_MIXED = "Keras documentation, Mixed precision"


class Mistake(NamedTuple):
    """One entry of the catalogue.

    Args:
        identifier: "SAE" and three digits, stable.
        severity: "error": a wrong number where the notes define one. "warning": it breaks at an
            edge, in another precision, on another backend or when saved.
        title: The mistake in one sentence.
        source: The equation or document that it violates.
        fix: What to do.
    """

    identifier: str
    severity: str
    title: str
    source: str
    fix: str


def _of_sparsity(label: str = "EQ-SPARSITY") -> str:
    return f"{label}; {NOTES}, §3"


def _of_cost(label: str) -> str:
    return f"{label}; {NOTES}, §2, eq (8)"


MISTAKES: tuple[Mistake, ...] = (
    # --- 1: the sparsity term
    Mistake(
        "SAE101",
        "error",
        "Keras divides the penalty by the batch size, so its strength depends on the batch.",
        f"{_of_sparsity()}; keras.layers.Layer divides an activity_regularizer's value by the "
        "batch size (Keras 3.14 and later, and tf.keras 2; Keras 3.0 to 3.13 does not)",
        "Multiply by ops.shape(x)[0] where Keras divides (KLSparsityRegularizer observes it), or "
        "use a layer with add_loss (KLSparsity), which Keras never divides.",
    ),
    Mistake(
        "SAE102",
        "error",
        "The penalty divides by the batch size itself.",
        _of_sparsity(),
        "ρ̂ is already a mean over the batch: do not divide βΣKL by the batch size again.",
    ),
    Mistake(
        "SAE103",
        "error",
        "The penalty reaches the loss multiplied by the batch size.",
        _of_sparsity(),
        "Multiply by the batch size only where Keras divides by it afterwards: an "
        "activity_regularizer on Keras 3.14 and later, never under add_loss.",
    ),
    Mistake(
        "SAE104",
        "error",
        "ρ̂ is a sum over the samples in place of their mean.",
        _of_sparsity("EQ-RHO-HAT"),
        "ops.mean(x, axis=0), not ops.sum(x, axis=0).",
    ),
    Mistake(
        "SAE105",
        "error",
        "ρ̂ is a mean over the wrong axis: over the units of a sample, not over the samples.",
        _of_sparsity("EQ-RHO-HAT"),
        "A row is a sample and a column a unit: ops.mean(x, axis=0).",
    ),
    Mistake(
        "SAE106",
        "error",
        "ρ̂ is one mean over all elements, not one for each unit.",
        _of_sparsity("EQ-RHO-HAT"),
        "ops.mean(x, axis=0), then sum the divergences of the units.",
    ),
    Mistake(
        "SAE107",
        "error",
        "The KL is taken of every single activation and then averaged: a mean of KLs is not the "
        "KL of a mean.",
        _of_sparsity("EQ-RHO-HAT"),
        "Take the mean over the samples first, then the KL of it.",
    ),
    Mistake(
        "SAE108",
        "error",
        "The KL is reversed: KL(ρ̂‖ρ) in place of KL(ρ‖ρ̂).",
        _of_sparsity("EQ-KL"),
        "ρ log(ρ/ρ̂) + (1 − ρ) log((1 − ρ)/(1 − ρ̂)): the weights are ρ and 1 − ρ.",
    ),
    Mistake(
        "SAE109",
        "error",
        "The (1 − ρ) half of the KL is missing.",
        _of_sparsity("EQ-KL"),
        "Add (1 − ρ) log((1 − ρ)/(1 − ρ̂)).",
    ),
    Mistake(
        "SAE110",
        "error",
        "The ρ half of the KL is missing.",
        _of_sparsity("EQ-KL"),
        "Add ρ log(ρ/ρ̂).",
    ),
    Mistake(
        "SAE111",
        "error",
        "The KL is averaged over the units in place of summed: the penalty is weaker by the "
        "number of units.",
        _of_sparsity(),
        "Sum over the units, or say in the docstring that β is per unit.",
    ),
    Mistake(
        "SAE112",
        "error",
        "The logarithm has the wrong base.",
        _of_sparsity("EQ-KL"),
        "Use the natural logarithm, or say in the docstring that the unit is not the nat.",
    ),
    Mistake(
        "SAE113",
        "error",
        "β is ignored: the penalty does not depend on it.",
        _of_sparsity(),
        "Multiply ΣKL by β.",
    ),
    Mistake(
        "SAE114",
        "error",
        "β is applied more than once: the penalty grows with a power of it.",
        _of_sparsity(),
        "Multiply ΣKL by β once (a loss weight or a second factor is the usual place).",
    ),
    Mistake(
        "SAE115",
        "error",
        "The penalty is a constant times the right one.",
        _of_sparsity(),
        "Remove the factor, or say in the docstring what β means with it.",
    ),
    Mistake(
        "SAE116",
        "error",
        "ρ is ignored: the penalty does not depend on it.",
        _of_sparsity("EQ-KL"),
        "Use the argument, not a constant.",
    ),
    Mistake(
        "SAE117",
        "error",
        "The constant of the KL is missing: it is the cross-entropy, not 0 at ρ̂ = ρ.",
        _of_sparsity("EQ-KL"),
        "Add ρ log ρ + (1 − ρ) log(1 − ρ). The gradient is right, the value is not.",
    ),
    Mistake(
        "SAE118",
        "error",
        "The sign is wrong: minimising it drives ρ̂ away from ρ.",
        _of_sparsity("EQ-KL"),
        "KL is not negative: add β ΣKL to the loss.",
    ),
    Mistake(
        "SAE119",
        "error",
        "The penalty is another function of ρ and ρ̂, not their KL divergence.",
        _of_sparsity("EQ-KL"),
        "ρ log(ρ/ρ̂) + (1 − ρ) log((1 − ρ)/(1 − ρ̂)).",
    ),
    Mistake(
        "SAE120",
        "error",
        "ρ and 1 − ρ are exchanged: units are driven to 1 − ρ.",
        _of_sparsity("EQ-KL"),
        "ρ belongs to log ρ̂, and 1 − ρ to log(1 − ρ̂).",
    ),
    Mistake(
        "SAE121",
        "error",
        "Logits are taken for activations: there is no sigmoid before the mean.",
        _of_sparsity("EQ-KL-LOGITS"),
        "Apply the sigmoid, or better compute from logits (KLSparsity(from_logits=True)).",
    ),
    Mistake(
        "SAE122",
        "error",
        "Activations are taken for logits: a sigmoid is applied to what is already a probability.",
        _of_sparsity("EQ-RHO-HAT"),
        "Take the mean of the layer's output as it is; from logits only on a layer without "
        "activation, and say so in the docstring or by an argument `from_logits`.",
    ),
    Mistake(
        "SAE123",
        "error",
        "Activations in [0, 1] are rescaled by (1 + a)/2 as if they were those of tanh.",
        _of_sparsity("EQ-RHO-HAT"),
        "Rescale only tanh activations (footnote 3 of the notes), and say so in the docstring.",
    ),
    Mistake(
        "SAE124",
        "error",
        "Activations in [−1, 1] are not rescaled by (1 + a)/2.",
        _of_sparsity("EQ-RHO-HAT"),
        "For tanh take ρ̂ of (1 + a)/2 (footnote 3 of the notes; KLSparsity(symmetric=True)).",
    ),
    Mistake(
        "SAE125",
        "error",
        "ρ̂ is a mean over a part of the batch (a replica, a chunk): KLs of parts are averaged.",
        _of_sparsity("EQ-RHO-HAT-CHUNKS"),
        "Sum activations and counts over the parts (all_reduce) before the KL.",
    ),
    Mistake(
        "SAE126",
        "error",
        "The guard against log 0 is so large that it changes the penalty of ordinary units.",
        _of_sparsity("EQ-KL-EXTENSION"),
        "Use an ε of 1e-6 or less.",
    ),
    Mistake(
        "SAE127",
        "error",
        "It does not return one number.",
        KERAS_REGULARIZERS,
        "Sum over the units, so that the result is a scalar.",
    ),
    Mistake(
        "SAE128",
        "error",
        "Masked steps are counted in ρ̂.",
        _of_sparsity("EQ-RHO-HAT"),
        "Set supports_masking = True, take mask=None in call, and average over valid steps only.",
    ),
    Mistake(
        "SAE129",
        "error",
        "Parentheses of the KL are missing or misplaced: a quotient or a weight is not what the "
        "formula says.",
        _of_sparsity("EQ-KL"),
        "(1 − ρ) log((1 − ρ)/(1 − ρ̂)): in code, (1 - rho) * log((1 - rho) / (1 - rho_hat)).",
    ),
    Mistake(
        "SAE130",
        "error",
        "The penalty is not of hidden activations, but of the output or of weights.",
        _of_sparsity("EQ-RHO-HAT"),
        "Give the activity_regularizer to the hidden layer; a kernel_regularizer gets the weights.",
    ),
    Mistake(
        "SAE131",
        "error",
        "ρ is not between 0 and 1: no unit of sigmoid has that mean activation.",
        _of_sparsity("EQ-KL"),
        "Divide a percentage by 100: 5 % is rho = 0.05.",
    ),
    Mistake(
        "SAE199",
        "error",
        "The penalty is not βΣKL, and none of the known mistakes explains it.",
        _of_sparsity(),
        "Compare with reference.sparsity_cost, term by term.",
    ),
    # --- 2: reconstruction and weight decay
    Mistake(
        "SAE201",
        "error",
        "The ½ of the reconstruction term is missing.",
        _of_cost("EQ-RECONSTRUCTION"),
        "Multiply by ½ (HalfSquaredError), or double β and λ.",
    ),
    Mistake(
        "SAE202",
        "error",
        "Squared errors are averaged over the features in place of summed.",
        _of_cost("EQ-RECONSTRUCTION"),
        "Sum over the features (HalfSquaredError), or scale β and λ by 2/features beside "
        '"mse" (to_keras_units).',
    ),
    Mistake(
        "SAE203",
        "error",
        "Squared errors are summed over the samples in place of averaged.",
        _of_cost("EQ-RECONSTRUCTION"),
        "Average over the samples.",
    ),
    Mistake(
        "SAE204",
        "error",
        "The error is not squared.",
        _of_cost("EQ-RECONSTRUCTION"),
        "½‖h(x) − y‖², the square of the norm.",
    ),
    Mistake(
        "SAE205",
        "error",
        "The reconstruction term is the cross-entropy, not half the squared error.",
        _of_cost("EQ-RECONSTRUCTION"),
        "HalfSquaredError; β and λ of the notes do not carry over to a cross-entropy.",
    ),
    Mistake(
        "SAE206",
        "error",
        "The reconstruction term is a constant times the right one.",
        _of_cost("EQ-RECONSTRUCTION"),
        "Remove the factor, or scale β and λ by it.",
    ),
    Mistake(
        "SAE209",
        "error",
        "The reconstruction term is not (1/m)Σ½‖h − y‖², and no known mistake explains it.",
        _of_cost("EQ-RECONSTRUCTION"),
        "Compare with reference.reconstruction_cost.",
    ),
    Mistake(
        "SAE211",
        "error",
        "The weight decay is λ‖W‖² in place of (λ/2)‖W‖².",
        _of_cost("EQ-DECAY"),
        "Keras's L2(l2) has no ½: l2 = λ/2 (WeightDecay(λ), to_keras_units).",
    ),
    Mistake(
        "SAE212",
        "error",
        "The weight decay is a constant times the right one.",
        _of_cost("EQ-DECAY"),
        "(λ/2)ΣW², a sum over all weights of all kernels.",
    ),
    Mistake(
        "SAE213",
        "error",
        "Biases are decayed.",
        f"{_of_cost('EQ-DECAY')}, footnote 1",
        "Give the biases no regularizer.",
    ),
    Mistake(
        "SAE214",
        "error",
        "A kernel has no weight decay.",
        _of_cost("EQ-DECAY"),
        "The sum runs over every layer's kernel.",
    ),
    Mistake(
        "SAE215",
        "error",
        "A tied kernel is counted twice in the weight decay.",
        _of_cost("EQ-DECAY"),
        "Regularize the one variable once; if twice is meant (the sum over layers as written), "
        "say so in the docstring.",
    ),
    Mistake(
        "SAE216",
        "warning",
        "The weight decay counts one use of a tied kernel, and the documentation does not say so.",
        _of_cost("EQ-DECAY"),
        "The sum over layers has the kernel twice: choose, and say so (tied_decay).",
    ),
    Mistake(
        "SAE217",
        "error",
        "The weight penalty is averaged over the weights in place of summed.",
        _of_cost("EQ-DECAY"),
        "Sum over the weights.",
    ),
    Mistake(
        "SAE218",
        "error",
        "The weight decay is not a sum of squares.",
        _of_cost("EQ-DECAY"),
        "(λ/2)ΣW²: no absolute value, no square root.",
    ),
    Mistake(
        "SAE219",
        "error",
        "The weight penalty is not what its arguments say, and no known mistake explains it.",
        f"EQ-L1, EQ-L2, EQ-L1L2, EQ-ORTHOGONAL; {KERAS_REGULARIZERS}",
        "Compare with reference.l1_l2 or reference.orthogonal.",
    ),
    # --- 3: gradients
    Mistake(
        "SAE301",
        "error",
        "There is no gradient: the value is cut off from the input (stop_gradient, detach, "
        "NumPy or Python numbers inside).",
        f"EQ-SPARSITY-SLOPE; {NOTES}, §3",
        "Compute with keras.ops on the tensor itself.",
    ),
    Mistake(
        "SAE302",
        "error",
        "The gradient cannot be computed: something inside leaves the backend's tensors.",
        f"EQ-SPARSITY-SLOPE; {NOTES}, §3",
        "Replace NumPy, .numpy(), .item() and float() inside by keras.ops.",
    ),
    Mistake(
        "SAE303",
        "error",
        "The gradient is a constant times the derivative of the value.",
        f"EQ-SPARSITY-SLOPE; {NOTES}, §3",
        "Correct the custom gradient.",
    ),
    Mistake(
        "SAE304",
        "error",
        "The gradient is not the derivative of the value: a part of it is cut off or wrong.",
        f"EQ-SPARSITY-SLOPE; {NOTES}, §3",
        "Look for stop_gradient, detach or a custom gradient on a part of the formula.",
    ),
    # --- 4: the edges of the KL
    Mistake(
        "SAE401",
        "warning",
        "NaN or infinity where a unit is dead (ρ̂ = 0) or saturated (ρ̂ = 1).",
        _of_sparsity("EQ-KL-EXTENSION"),
        "Continue the KL along its tangent beyond [ε, 1 − ε], or compute from logits.",
    ),
    Mistake(
        "SAE402",
        "warning",
        "The gradient is zero at the clip: a dead or saturated unit is not pushed back.",
        _of_sparsity("EQ-KL-EXTENSION-DERIVATIVE"),
        "Continue the KL along its tangent in place of clipping ρ̂, or compute from logits.",
    ),
    Mistake(
        "SAE403",
        "warning",
        "Activations outside [0, 1] (ReLU, tanh) are not handled: ρ̂ beyond the edge gives NaN or "
        "infinity.",
        _of_sparsity("EQ-KL-EXTENSION"),
        "Use a sigmoid layer; or continue the KL along its tangent; or rescale tanh.",
    ),
    # --- 5: precision
    Mistake(
        "SAE501",
        "warning",
        "The penalty is returned in half precision.",
        KERAS_MIXED,
        'Cast the input: x = ops.cast(x, "float32"). TensorFlow\'s fit raises TypeError on it.',
    ),
    Mistake(
        "SAE502",
        "warning",
        "Half precision overflows inside: NaN or infinity where float32 is finite.",
        KERAS_MIXED,
        'Cast before the mean and the logarithm: x = ops.cast(x, "float32").',
    ),
    Mistake(
        "SAE503",
        "warning",
        "It raises on half-precision input (mixed precision).",
        KERAS_MIXED,
        'Cast the input: x = ops.cast(x, "float32").',
    ),
    # --- 6: backends and state
    Mistake(
        "SAE601",
        "error",
        "It raises an exception when it is called.",
        "Keras documentation, keras.ops",
        "Correct the call that raises.",
    ),
    Mistake(
        "SAE602",
        "warning",
        "It works on one backend only: it calls that backend's own functions.",
        "Keras documentation, Writing your code with keras.ops",
        "Use keras.ops.",
    ),
    Mistake(
        "SAE603",
        "error",
        "It calls a function that no longer exists.",
        "Keras documentation, keras.ops (tf.log went with TensorFlow 2, K.mean with Keras 3)",
        "Use keras.ops: tf.log → ops.log, K.mean → ops.mean, K.sum → ops.sum.",
    ),
    Mistake(
        "SAE604",
        "error",
        "It keeps state: Keras does not track a regularizer's variables, and JAX drops their "
        "updates.",
        f"EQ-RHO-HAT-RUNNING; {KERAS_LAYERS}",
        "Keep the running average in a layer (add_weight, trainable=False): "
        "KLSparsity(momentum=...).",
    ),
    Mistake(
        "SAE605",
        "warning",
        "It works eagerly but not inside a compiled or symbolic model, as `fit` uses it.",
        KERAS_LAYERS,
        "Use ops.shape(x)[0] for the batch size, and no Python branches on tensor values.",
    ),
    # --- 7: saving
    Mistake(
        "SAE701",
        "warning",
        "get_config loses arguments: a reloaded model trains something else.",
        KERAS_SAVING,
        "Return every constructor argument from get_config.",
    ),
    Mistake(
        "SAE702",
        "warning",
        "It is not registered: a saved model does not load without custom_objects.",
        KERAS_SAVING,
        "Decorate it with @keras.saving.register_keras_serializable(package=...).",
    ),
    Mistake(
        "SAE703",
        "warning",
        "It cannot be reloaded from its own configuration.",
        KERAS_SAVING,
        "get_config must return plain values under the names of the constructor's arguments.",
    ),
    # --- 8: tied weights
    Mistake(
        "SAE801",
        "error",
        "The tied layer trains a kernel of its own: the weights are copied, not shared.",
        f"EQ-GRADIENT-TIED; {KERAS_LAYERS}",
        "Use ops.transpose(tied_to.kernel) in call; create no kernel in build.",
    ),
    Mistake(
        "SAE802",
        "error",
        "The tied kernel is frozen: a transpose stored when the layer was built does not follow "
        "the encoder.",
        f"EQ-GRADIENT-TIED; {KERAS_LAYERS}",
        "Transpose in call, not in build.",
    ),
    Mistake(
        "SAE803",
        "error",
        "The decoder's use of the tied kernel gives it no gradient.",
        "EQ-GRADIENT-TIED",
        "Remove stop_gradient (or detach, or NumPy) from the transposed kernel.",
    ),
    Mistake(
        "SAE804",
        "warning",
        "The tie is lost when the model is cloned.",
        KERAS_SAVING,
        "One model or layer owns the kernel and both uses of it, or clone with a function that "
        "keeps the layers' identity.",
    ),
    Mistake(
        "SAE805",
        "warning",
        "The tie is lost, or loading fails, when the model is saved and loaded.",
        KERAS_SAVING,
        "Return the tied layer from get_config in a form that keras.saving can share, or let one "
        "model own the kernel.",
    ),
    Mistake(
        "SAE806",
        "error",
        "The tied kernel is counted twice among the weights or in the losses.",
        f"EQ-DECAY; {KERAS_LAYERS}",
        "Let one layer track the variable, and regularize it once.",
    ),
    Mistake(
        "SAE807",
        "error",
        "The tied layer's output is not f(x Wᵀ + b) with the encoder's kernel W.",
        "EQ-FORWARD",
        "ops.matmul(x, ops.transpose(tied_to.kernel)) + bias, then the activation.",
    ),
    Mistake(
        "SAE808",
        "error",
        "Weight decay acts on one use of the tied kernel only: the layer takes a "
        "kernel_regularizer and ignores it.",
        _of_cost("EQ-DECAY"),
        "Refuse kernel_regularizer (the encoder has it), or add its loss.",
    ),
)

BY_IDENTIFIER = {mistake.identifier: mistake for mistake in MISTAKES}


def identifiers(text: str) -> tuple[str, ...]:
    """Return the identifiers that a text names: one, or all that begin so, in any case.

    Raises:
        ValueError: If there is none; it says which are near.

    >>> identifiers("sae402"), identifiers("SAE4")
    (('SAE402',), ('SAE401', 'SAE402', 'SAE403'))
    >>> identifiers("SAE4O2")
    Traceback (most recent call last):
    ValueError: there is no finding 'SAE4O2'; near it: SAE402
    """
    wanted = text.strip().upper()
    found = tuple(name for name in BY_IDENTIFIER if name.startswith(wanted))
    if re.fullmatch(r"SAE\d+", wanted) and found:
        return found
    digits = re.sub(r"^[A-Z]*?(?=[\dOIL]{2})", "", wanted).translate(str.maketrans("OIL", "011"))
    unlike = {
        name: sum(a != b for a, b in itertools.zip_longest(name[3:], digits))
        for name in BY_IDENTIFIER
    }
    order = sorted(unlike, key=lambda name: (unlike[name], name[3:4] != digits[:1]))
    near = [name for name in order if unlike[name] < 2][: 3 if 0 not in unlike.values() else 1]
    where = f"near it: {', '.join(near)}" if near else "`sae-oracle explain --list` has all"
    raise ValueError(f"there is no finding {text!r}; {where}")


def as_markdown() -> str:
    """Return docs/findings.md."""
    lines = [
        "# What the reviewer finds",
        "",
        "Identifiers are stable. An *error* is a wrong number where the notes define one; a",
        "*warning* breaks at an edge, in another precision, on another backend or when saved.",
        "Both make `sae-oracle review` end with status 1. `sae-oracle explain SAE105` says the",
        "same in a terminal. This page is written by",
        "`python -m tests.sae_oracle.reviewer.report --write`; a test holds it to the code.",
    ]
    groups = {
        "1": "The sparsity term",
        "2": "Reconstruction and weight decay",
        "3": "Gradients",
        "4": "The edges of the KL",
        "5": "Precision",
        "6": "Backends and state",
        "7": "Saving",
        "8": "Tied weights",
    }
    for digit, name in groups.items():
        lines += ["", f"## {name}", "", "| finding | severity | the mistake | violates | the fix |"]
        lines += ["|---|---|---|---|---|"]
        for m in MISTAKES:
            if m.identifier[3] == digit:
                anchor = f'<a id="{m.identifier.lower()}"></a>{m.identifier}'
                lines.append(f"| {anchor} | {m.severity} | {m.title} | {m.source} | {m.fix} |")
    return "\n".join(lines) + "\n"
