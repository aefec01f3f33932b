"""What the arguments of a function are: data, means, targets, parameters, or hyperparameters.

A signature can be read in more than one way (`f(p, q)`, `f(x)`); the readings come in the order of
their likelihood, and the reviewer keeps the one that explains the numbers best.
"""

from __future__ import annotations

import ast
import functools
import inspect
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat, TypeGuard

import numpy as np

from sae_oracle.reviewer import source


def words(text: str) -> set[str]:
    """Return the words of a text."""
    return set(text.split())


# Names in use for each hyperparameter, without underscores and case; the first that fits is it.
_HYPERPARAMETERS = {
    "rho": "rho ρ sparsitytarget targetsparsity sparsitylevel sparsityparam sparsityparameter "
    "targetactivation desiredactivation desiredsparsity sparsityrho rhotarget targetrho "
    "rhodesired desiredrho rhostar rho0 sparseparam sparselevel sparserho "
    "sparsetarget sparsityprob sparsityconstant sparsityproportion activationtarget meantarget "
    "targetmean avgactivationtarget desiredmean desiredmeanactivation sparsity sparsityvalue "
    "sparsityp rhop expectedactivation desiredaverageactivation targetprobability probability "
    "desiredsparsitylevel kltarget taux tauxcible cible ziel zielwert objetivo meta obiettivo "
    "p target r q level prob",
    "beta": "beta β sparsitybeta betasparsity sparsityweight weightsparsity sparsitycoefficient "
    "sparsitycoef coefsparsity sparsitylambda lambdasparsity lambdasparse sparsepenalty "
    "sparseweight sparsereg sparsityreg sparsitycost sparsitycoeff sparsityregularization "
    "sparsitypenaltyweight sparsitystrength sparsitypenalty sparsityscale sparsityfactor "
    "penaltyweight penaltycoef penaltyfactor penaltystrength "
    "klweight weightkl klcoef klcoeff klcoefficient kllambda lambdakl klscale klfactor klbeta "
    "betakl klstrength poids gewicht peso "
    "reglambda regweight regparam regcoef regcoeff regstrength regularization "
    "regularizationweight regularizationstrength lambdareg lambd coefficient coef coeff "
    "weight strength factor scale rate multiplier b gamma alpha eta lam lambda lmbda λ reg c",
    "weight_decay": "weightdecay weightdecayparameter weightdecayparam decayweight decayparam "
    "lambdaw lambdaweight lambdadecay lambda λ lam lmbda lambd lambda1 decay l2 l2reg l2weight "
    "l2factor l2lambda lambdal2 wd regparam reglambda reg alpha",
}
HYPERPARAMETERS = {role: names.split() for role, names in _HYPERPARAMETERS.items()}

# What may as well be data, or another number: believed where nothing else can be it.
_WEAK = words("p target r q level prob weight scale rate b c eta factor reg gamma alpha")

_DATA = {
    "means": "rhohat phat qhat hatrho hatp rhohats rhohatj rhoj means meanact meanactivation "
    "meanactivations avgactivation avgactivations averageactivation averageactivations avgact "
    "averagedactivation activationmean activationmeans meanhidden hiddenmean actualrho rhoactual "
    "rhobar rhoavg rhomean meanrho rhoemp empiricalrho estimatedrho observedrho currentrho "
    "actualsparsity meanvalue observed observedsparsity avgrho rhoest ρhat meanunits unitmeans "
    "qhats rhos rhocap rhoh averagedactivations hatrhos sparsityhat currentsparsity empirical "
    "ρ̂ rhohatvector avgrhohat",
    "activations": "a a1 a2 act acts activation activations h h1 h2 hid hidden hiddens hiddenact "
    "hiddenacts hiddenactivation hiddenactivations hiddenoutput hiddenoutputs hiddenunits "
    "hiddenlayer hiddenlayeroutput hiddenstate hiddenstates hiddenrepresentation encoded encoding "
    "encodings encoderoutput enc code codes latent latents z z2 feature features embedding "
    "embeddings representation hs hact activity activmatrix activationmatrix layeroutput hdn "
    "hiddenfeatures hiddenvalues bottleneck hiddenvals activs ah units hiddencode repr",
    "y_pred": "ypred xhat xrec xrecon reconstruction recon reconx reconstructed reconstructions "
    "output outputs pred prediction predictions preds decoded dec xpred yhat xprime xtilde xr out "
    "reconstructedx decoderoutput xdecoded a3 xout xreconstructed hx ŷ xbar rec result logits",
    "y_true": "ytrue target targets label labels true truth x y original orig xtrue input inputs "
    "data images image img batch minibatch xb xbatch batchx samples originalx groundtruth gt inp t "
    "xin actual xorig expected v",
}
DATA = {role: set(names.split()) for role, names in _DATA.items()}
_PARAMETERS = words(
    "theta thetas params parameters param weights parametervector weightvector w0 "
    "thetavec vec flatparams flattheta wb θ"
)
MODEL = words("model net network ae autoencoder module sae self autoenc encoderdecoder nn")
SIZES = {
    "visible": "visiblesize visible nvisible visibleunits inputdim inputsize inputunits ninputs "
    "ninput nin ninputs originaldim inputfeatures infeatures dinput nfeatures ninp inputlayersize "
    "din dimin ndim dim numvisible indim inputs inputshape numinputs numinput numfeatures nx nv "
    "visibledim dvisible numinputfeatures d nvis insize "
    "dimentree nentree nentrees dimentrada nentrada nentradas neingabe",
    "hidden": "hiddensize hidden nhidden hiddenunits hiddendim latentdim encodingdim codesize "
    "nhid nhiddens numhidden hiddenlayersize dhidden dimhidden latentsize encodingsize codedim "
    "hdim hsize latent bottleneck embeddingdim outfeatures outdim outputdim units nh k "
    "numhiddenunits hiddenfeatures dhid outputsize nunits numunits dlatent bottleneckdim "
    "numlatents ncomponents nlatents outsize dimcachee ncachee ncachees dimoculta noculta "
    "nocultas nverborgen",
}
_SIZES = {name: role for role, names in SIZES.items() for name in names.split()}
_IS_A_SIZE = ("size", "dim", "units", "features", "num", "neurons", "nodes", "width", "shape")
_SIDES = {
    "hidden": ("hid", "latent", "code", "encod", "bottleneck", "embed", "inner", "dict"),
    "visible": ("visible", "input", "in_", "_in", "data", "image", "img", "pixel", "origin"),
}


class _DoesNothing:
    """Stands for an optimizer or a log: whatever it is asked to do, it does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **more: None


# What a step of training takes beside model and batch, and what it is given here.
_BYSTANDERS: dict[str, Any] = {
    **dict.fromkeys(
        words("optimizer optimiser optim opt scheduler lrscheduler writer logger scaler ema pbar"),
        _DoesNothing(),
    ),
    **dict.fromkeys(words("batchidx batchindex batchid batchnb batchi globalstep epoch step"), 0),
    **dict.fromkeys(words("rng key rngkey prngkey randomkey"), None),
    "device": "cpu",
}
BATCH_SIZES = words("batchsize bs nsamples numsamples samples nbatch batchlength m")
APPLIES = words("applyfn apply modelapply netapply applyfun forwardfn networkapply modelfn")
LOADERS = words("loader dataloader trainloader traindataloader traindl dl trainiter dataiter")


def bystanders(names: Iterable[str]) -> dict[str, Any]:
    """Return a value for each argument that a step of training takes and no term depends on.

    >>> bystanders(["model", "batch", "batch_idx"])
    {'batch_idx': 0}
    """
    return {n: _BYSTANDERS[plain(n)] for n in names if plain(n) in _BYSTANDERS}


def plain(name: str) -> str:
    """Return a name without underscores and case.

    >>> plain("sparsity_Param_")
    'sparsityparam'
    """
    return name.replace("_", "").lower()


_OF_UNITS = ("hidden", "encod", "activation", "latent", "codes")


def data_roles(name: str) -> set[str]:
    """Return what data an argument may be, by its name: some of `DATA`.

    >>> sorted(data_roles("rho_hat")), sorted(data_roles("encoded_layer")), data_roles("rho")
    (['means'], ['activations'], set())
    """
    short = plain(name)
    found = {role for role, names in DATA.items() if short in names}
    if not found and size_named(name) is None and any(word in short for word in _OF_UNITS):
        is_other = any(word in short for word in (*_IS_A_SIZE, "target", "weight", "function"))
        return set() if is_other or weight_named(name) else {"activations"}
    return found


def size_named(name: str) -> str | None:
    """Return "visible" or "hidden" for the name of a size, else `None`.

    >>> size_named("hidden_size"), size_named("rho")
    ('hidden', None)
    """
    return _SIZES.get(plain(name))


def sizes_among(names: Iterable[str]) -> dict[str, str]:
    """Return "visible" or "hidden" for each of the names that is one of a network's sizes.

    An output is as wide as the input where something else is the hidden layer.

    >>> sizes_among(["n_in", "encoded_size", "output_size"])
    {'n_in': 'visible', 'encoded_size': 'hidden', 'output_size': 'visible'}
    >>> sizes_among(["in_features", "out_features", "rho"])
    {'in_features': 'visible', 'out_features': 'hidden'}
    """
    found: dict[str, str] = {}
    outputs = []
    for name in names:
        size = size_named(name)
        if size is None and any(word in plain(name) for word in _IS_A_SIZE):
            low = name.lower()
            size = next((s for s, words in _SIDES.items() if any(w in low for w in words)), None)
        if plain(name).startswith(("out", "nout", "dimout", "dout")) or plain(name) == "numout":
            outputs.append(name)
            size = size or "hidden"
        if size is not None:
            found[name] = size
    others = {size for name, size in found.items() if name not in outputs}
    return found | (dict.fromkeys(outputs, "visible") if "hidden" in others else {})


@dataclass(frozen=True)
class Reading:
    """One way to read a signature.

    Args:
        kind: "activations", "means", "loss", "training loss", "cost", "model loss" or "weights".
        data: The argument that has each role of the data.
        hyper: The arguments that are ρ, β and λ.
        cost: How far-fetched it is.
        words: What was guessed, in words.
    """

    kind: str
    data: Mapping[str, str]
    hyper: Mapping[str, str]
    cost: float = 0.0
    words: tuple[str, ...] = ()


@dataclass
class Signature:
    """The arguments of a function: numbers that have a default, and what must be given."""

    required: list[str] = field(default_factory=list)
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All arguments."""
        return [*self.required, *self.defaults]


def is_number(value: Any) -> TypeGuard[SupportsFloat]:
    """Whether a value is one real number: of Python, NumPy or a tensor of one element."""
    if isinstance(value, (bool, str)):
        return False
    if isinstance(value, numbers.Real):
        return True
    return hasattr(value, "dtype") and np.shape(value) == () and hasattr(value, "__float__")


def signature_of(function: Any) -> Signature | None:
    """Return the arguments of a function, method or what wraps one; `None`: it has no signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        schema = getattr(function, "schema", None)  # torch.jit
        if schema is None:
            return None
        found = Signature()
        for argument in schema.arguments:
            if argument.has_default_value():
                found.defaults[argument.name] = argument.default_value
            elif argument.name != "self":
                found.required.append(argument.name)
        return found
    found = Signature()
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            if found.required:
                found.required += _unpacked(function, p.name)
            elif source.goes_through(function, p.name):
                found.required.append(p.name)  # any number of layers: one
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            continue
        if p.default is p.empty:
            found.required.append(p.name)
        else:
            found.defaults[p.name] = p.default
    inner = source.underlying(function)
    if not found.names and inner is not function and not inspect.isclass(function):
        return signature_of(inner)  # it passes on whatever it is given
    return found


def _unpacked(function: Any, name: str) -> list[str]:
    """The names that a function unpacks its *args to, as scipy.optimize passes them."""
    for node in ast.walk(source.tree_of(source.subject_of(function))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            (target, *_) = node.targets
            if node.value.id == name and isinstance(target, ast.Tuple):
                return [item.id for item in target.elts if isinstance(item, ast.Name)]
    return []


def hyperparameters(
    signature: Signature, given: Mapping[str, Any], known: Iterable[str] = ()
) -> dict[str, str]:
    """Return the arguments that are surely ρ, β and λ: by what was said, a default, or a name.

    Args:
        signature: The arguments.
        given: What was said: names of arguments.
        known: The roles that have their value elsewhere (in a constructor, a constant).
    """
    found = {
        role: name
        for role, name in given.items()
        if isinstance(name, str) and name in signature.names
    }
    numeric = [n for n, v in signature.defaults.items() if is_number(v)]
    others = [n for n in signature.required if plain(n) not in _WEAK]
    by_data = {name for names in DATA.values() for name in names}
    for role, names in HYPERPARAMETERS.items():
        if role in found or isinstance(given.get(role), str):
            continue
        pool = [n for n in numeric if n not in found.values()]
        if role == "beta" and role in known:
            pool = [n for n in pool if plain(n) not in HYPERPARAMETERS["weight_decay"]]
        pool += [
            n
            for n in others
            if n not in found.values()
            and plain(n) not in by_data
            and (role not in known or plain(n) in names)
        ]
        plains = {plain(n): n for n in reversed(pool)}
        hit = next((plains[name] for name in names if name in plains), None)
        hit = hit or next((n for p, n in plains.items() if sounds_like(p) == role), None)
        if hit is not None:
            found[role] = hit
    # λ beside β: without a β, the one factor of a sparsity penalty is β.
    if "weight_decay" in found and "beta" not in found and "beta" not in known:
        name = found["weight_decay"]
        if plain(name) in HYPERPARAMETERS["beta"] and not _has_parameters(signature.required):
            found["beta"] = found.pop("weight_decay")
    return found


_NOT_A_TARGET = ("hat", "avg", "mean", "aver", "actual", "cap", "bar", "est", "obs", "curr")


def sounds_like(name: str) -> str | None:
    """The hyperparameter that a name is made of, where no table has it.

    >>> sounds_like("lamda"), sounds_like("sparsityregularizerweight"), sounds_like("rhohat")
    ('weight_decay', 'beta', None)
    """
    is_factor = any(w in name for w in ("weight", "coef", "lam", "streng", "scale", "factor"))
    of_penalty = any(w in name for w in ("spars", "kl", "penal", "reg"))
    if "beta" in name or (is_factor and of_penalty):
        return "beta"
    if name.startswith(("lam", "lmb", "l2")) or "decay" in name:
        return "weight_decay"
    if "target" in name and any(w in name for w in ("act", "rate", "freq", "level", "spars")):
        return "rho"
    if "rho" in name or any(w in name for w in ("sparsity", "desired")):
        return None if any(w in name for w in _NOT_A_TARGET) else "rho"
    return None


def _has_parameters(names: Sequence[str]) -> bool:
    return any(is_parameters(n) or plain(n) in MODEL or weight_named(n) for n in names)


TRAINING = "training_step"
"""What the body of a script's loop is called as a function of a batch."""


def is_batch(name: str) -> bool:
    """Whether a name is that of data, or of a part of it.

    >>> is_batch("X_train"), is_batch("rho")
    (True, False)
    """
    short = plain(name).replace("train", "")
    return short in DATA["y_true"] or name.lower() in ("train_set", "dataset", "patches")


def is_parameters(name: str) -> bool:
    """Whether a name is that of all parameters in one: theta, params."""
    return plain(name) in _PARAMETERS


_LAYER_WORDS = (
    ("encoder", "1"), ("decoder", "2"), ("enc", "1"), ("dec", "2"), ("hidden", "1"),
    ("hid", "1"), ("visible", "2"), ("vis", "2"), ("output", "2"), ("out", "2"),
    ("input", "1"), ("in", "1"), ("weights", "w"), ("weight", "w"), ("kernel", "w"),
    ("theta", "w"), ("biases", "b"), ("bias", "b"), ("layer", ""), ("fc", ""), ("linear", ""),
)  # fmt: skip


def weight_named(name: str) -> str | None:
    """Return "W1", "b1", "W2" or "b2" for the name of one kernel or bias, else `None`.

    >>> [weight_named(name) for name in ("W_enc", "decoder_bias", "b1", "W", "rho", "data")]
    ['W1', 'b2', 'b1', 'W1', None, None]
    """
    left = plain(name)
    for word, short in _LAYER_WORDS:
        left = left.replace(word, short)
    left = "".join(c for c in left if c not in " .")
    shorts = {"e": "1", "h": "1", "d": "2", "o": "2", "v": "2", "0": "0"}
    for kind in ("w", "b"):
        if left.startswith(kind) or left.endswith(kind):
            layer = left.replace(kind, "", 1)
            layer = shorts.get(layer, layer)
            if layer in ("", "1", "2"):
                if kind == "b" and layer == "":
                    return None
                return ("W" if kind == "w" else "b") + (layer or "1")
    return None


def readings(
    name: str,
    signature: Signature,
    given: Mapping[str, Any],
    known: Iterable[str] = (),
    *,
    is_forward: bool = False,
    kind: str | None = None,
) -> list[Reading]:
    """Return the ways to read a signature, the likeliest first; empty: it takes no data.

    Args:
        name: Of the function.
        signature: Its arguments.
        given: The names of ρ, β and λ that were said.
        known: The roles that have their value elsewhere.
        is_forward: Whether it is the one method that a module is called by.
        kind: The kind that was said.
    """
    hyper = hyperparameters(signature, given, known)
    aside = {*hyper.values(), *bystanders(signature.required)}
    aside |= {
        n for n in signature.required if plain(n) in BATCH_SIZES and n != signature.required[0]
    }
    rest = [n for n in signature.required if n not in aside]
    found = list(_readings(plain(name), rest, hyper, given, set(known), is_forward))
    if kind is not None:
        found = [r for r in found if r.kind == kind] or found
    return found


def _readings(
    name: str,
    rest: list[str],
    hyper: dict[str, str],
    given: Mapping[str, Any],
    known: set[str],
    is_forward: bool,
) -> Iterator[Reading]:
    if not rest:
        return
    plains = {n: plain(n) for n in rest}
    roles = {n: data_roles(n) for n in rest}
    are_weights = [
        bool(weight_named(n)) or is_parameters(n) or p in ("kernel", *MODEL)
        for n, p in plains.items()
    ]
    if all(are_weights) and "rho" not in hyper:
        more = dict(hyper)
        if "weight_decay" not in more and "beta" in more:
            more["weight_decay"] = more.pop("beta")
        yield Reading("weights", {n: n for n in rest}, more)
        return
    of_units = any({"means", "activations"} & found for found in roles.values())
    if len(rest) > 1 and any(is_parameters(n) or (weight_named(n) and not of_units) for n in rest):
        rest_of_exercise = _as_in_the_exercise(rest, hyper)
        yield Reading("cost", {}, hyper if rest_of_exercise is None else rest_of_exercise)
        if "beta" in hyper and "weight_decay" not in hyper and plain(hyper["beta"]) != "beta":
            without = {k: v for k, v in hyper.items() if k != "beta"}
            yield Reading("cost", {}, {**without, "weight_decay": hyper["beta"]}, 0.1)
        return
    if any(p in MODEL for p in plains.values()):
        model = next(n for n, p in plains.items() if p in MODEL)
        inputs = [n for n in rest if n != model]
        if len(inputs) == 1:
            yield Reading("model loss", {"model": model, "x": inputs[0]}, hyper)
        return
    rest = [n for n in rest if roles[n] or size_named(n) is None]
    rho_is_known = "rho" in hyper or "rho" in known or given.get("rho") is not None
    if not rest:  # sizes alone: it makes something
        return
    if len(rest) == 1:
        (only,) = rest
        if "means" in roles[only]:
            yield Reading("means", {"means": only}, hyper)
            yield Reading("activations", {"activations": only}, hyper, 3.0)
        else:
            yield Reading("activations", {"activations": only}, hyper)
            if not is_forward and "activations" not in roles[only]:
                guess = f"`{only}` is taken for ρ̂, the means"
                yield Reading("means", {"means": only}, hyper, 0.5, (guess,))
        return
    if len(rest) == 2:
        first, second = rest
        pairs = [(first, second), (second, first)]
        is_divergence = "kl" in name or "diverg" in name or "spars" in name
        of_loss = [
            (pred, true)
            for pred, true in pairs
            if "y_pred" in roles[pred] and "y_true" in roles[true]
        ] or [
            (pred, true)
            for pred, true in pairs
            if plains[pred] in ("input", "inputs", "h", "x")
            and plains[true] in DATA["y_true"]
            and plains[pred] != plains[true]
            and not is_divergence
        ]
        for pred, true in of_loss[:1]:
            yield Reading("loss", {"y_pred": pred, "y_true": true}, hyper)
        if of_loss and not is_divergence:
            return
        if not rho_is_known:
            for rho, data in pairs:
                is_rho = plains[rho] in HYPERPARAMETERS["rho"]
                cost = 0.0 if is_rho else (0.4 if rho == first else 0.6)
                words: tuple[str, ...] = (
                    () if is_rho else (f"`{rho}` is taken for ρ, `{data}` for ρ̂",)
                )
                if "activations" in roles[data]:
                    yield Reading("activations", {"activations": data}, {**hyper, "rho": rho}, cost)
                else:
                    yield Reading("means", {"means": data}, {**hyper, "rho": rho}, cost, words)
                    if not is_divergence:
                        yield Reading(
                            "activations",
                            {"activations": data},
                            {**hyper, "rho": rho},
                            cost + 0.3,
                        )
        if not of_loss:
            weak = [n for n in rest if plains[n] in HYPERPARAMETERS["beta"]]
            if rho_is_known and weak and "beta" not in hyper:
                data = next(n for n in rest if n != weak[-1])
                more = {**hyper, "beta": weak[-1]}
                role = "means" if "means" in roles[data] else "activations"
                yield Reading(role, {role: data}, more)
            yield Reading("loss", {"y_pred": second, "y_true": first}, hyper, 0.8)
        return
    if len(rest) == 3:
        inputs = [n for n in rest if plains[n] not in _WEAK or plains[n] == "target"]
        hidden = [n for n in rest if "activations" in roles[n]] or [
            n for n in rest if "means" in roles[n]
        ]
        weak = [n for n in rest if n not in inputs]
        if not rho_is_known and weak and len(hidden) == 1:
            others = [n for n in rest if n != hidden[0]]
            of_rho = [n for n in others if plains[n] in HYPERPARAMETERS["rho"]]
            of_beta = [n for n in others if n not in of_rho[:1]]
            if of_rho and plains[of_beta[0]] in HYPERPARAMETERS["beta"]:
                role = "means" if "means" in roles[hidden[0]] else "activations"
                more = {**hyper, "rho": of_rho[0], "beta": of_beta[0]}
                yield Reading(role, {role: hidden[0]}, more)
        if len(inputs) == 3:
            inner = hidden[-1] if hidden else rest[-1]
            role = "means" if "means" in roles[inner] else "activations"
            others = [n for n in rest if n != inner]
            pred = next((n for n in others if "y_pred" in roles[n]), others[0])
            true = next(n for n in others if n != pred)
            yield Reading("training loss", {"y_pred": pred, "y_true": true, role: inner}, hyper)


def _as_in_the_exercise(rest: list[str], hyper: dict[str, str]) -> dict[str, str] | None:
    """(theta, visible, hidden, λ, ρ, β, data) by position, where names say too little."""
    if len(rest) < 5 or not is_parameters(rest[0]):
        return None
    numbers = [n for n in rest[3:-1] if n not in hyper.values() and size_named(n) is None]
    free = [role for role in ("weight_decay", "rho", "beta") if role not in hyper]
    if not numbers or len(numbers) != len(free):
        return None
    return {**hyper, **dict(zip(free, numbers, strict=True))}


def numbers_of(thing: Any) -> dict[str, float]:
    """Return the numbers that the source uses by name.

    A constant of the module, of a configuration, of an enclosing function, one that the function
    itself assigns, or one that a partial function was given.
    """
    found: dict[str, float] = {}
    if isinstance(thing, functools.partial):
        try:
            given = inspect.signature(thing.func).bind_partial(*thing.args, **thing.keywords)
        except (TypeError, ValueError):
            given = None
        if given is not None:
            found |= {n: float(v) for n, v in given.arguments.items() if is_number(v)}
    for subject in source.functions(thing):
        tree = source.tree_of(subject)
        namespace = source.visible_names(subject)
        used = {*source.names_of(subject)} - _arguments_in(tree)
        found.update({n: float(namespace[n]) for n in used if is_number(namespace.get(n))})
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    pairs: Iterable[tuple[ast.AST, ast.AST | None]] = [(target, node.value)]
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                        pairs = zip(target.elts, node.value.elts, strict=False)
                    for each, held in pairs:
                        number = _literal(held)
                        if isinstance(each, ast.Name) and number is not None:
                            found[each.id] = number
            base = getattr(node, "value", None)
            owner = namespace.get(base.id) if isinstance(base, ast.Name) else None
            if isinstance(node, ast.Attribute) and owner is not None:  # config.rho
                value = getattr(owner, node.attr, None)
                if is_number(value) and not inspect.ismodule(owner):
                    found[node.attr] = float(value)
            if isinstance(node, ast.Subscript) and isinstance(owner, Mapping):  # config["rho"]
                key = getattr(node.slice, "value", None)
                if isinstance(key, str) and is_number(owner.get(key)):
                    found[key] = float(owner[key])
    return found


def constants(thing: Any) -> dict[str, tuple[str, float]]:
    """Return ρ, β and λ among the numbers that the source uses by name: where, and the value."""
    found = numbers_of(thing)
    named: dict[str, tuple[str, float]] = {}
    plains = {plain(n): n for n in found}
    for role, names in HYPERPARAMETERS.items():
        fuzzy = [p for p in plains if sounds_like(p) == role]
        for candidate in [*names, *fuzzy]:
            name = plains.get(candidate)
            if name is None or any(name == other for other, _ in named.values()):
                continue
            if role == "rho" and not 0.0 < found[name] < 1.0:
                continue
            named[role] = (name, found[name])
            break
    return named


def _arguments_in(tree: ast.AST) -> set[str]:
    """The names of arguments, which hide the module's."""
    return {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.arguments)
        for argument in (*node.posonlyargs, *node.args, *node.kwonlyargs)
    }


def _literal(node: ast.AST | None) -> float | None:
    """The number that an expression without names is."""
    if node is None:
        return None
    if isinstance(node, ast.Call) and len(node.args) == 1:  # torch.tensor(0.05)
        node = node.args[0]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return float(value) if is_number(value) else None


def literals(thing: Any) -> list[float]:
    """Return the numbers in (0, 1) that are written in the source: each might be ρ."""
    found: list[float] = []
    for subject in source.functions(thing):
        for node in ast.walk(source.tree_of(subject)):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                value = float(node.value)
                if 1e-3 <= value <= 0.999 and value not in found:
                    found.append(value)
    return found
