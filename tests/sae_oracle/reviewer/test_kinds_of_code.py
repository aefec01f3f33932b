"""Code as people have it, in a file: what it needs is stood in for, right or with one mistake."""

from __future__ import annotations

import pytest

from sae_oracle.reviewer import review

pytestmark = pytest.mark.only_backends("torch")

_KL = "p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))"
_NETWORK = """
        self.enc, self.dec = nn.Linear(CFG, HID), nn.Linear(HID, CFG)
    def forward(self, x):
        h = torch.sigmoid(self.enc(x))
        return torch.sigmoid(self.dec(h)), h
"""
_LOSS = f"""
        out, h = NET(x)
        p, q = RHO, h.mean(AXIS)
        return 0.5 * ((out - x) ** 2).sum(1).mean() + 3.0 * ({_KL}).sum()
"""
_HEAD = "import argparse\nfrom dataclasses import dataclass\nimport torch\nfrom torch import nn\n"
_CLASS = "class Net(nn.Module):\n    def __init__(self, config):\n        super().__init__()"


def _configured(argument: str, read: str) -> str:
    network = _NETWORK.replace("CFG", read.format("n_in")).replace("HID", read.format("n_hid"))
    head = _CLASS.replace("config", argument) + f"\n        self.rho = {read.format('rho')}"
    loss = _LOSS.replace("NET", "self").replace("RHO", "self.rho")
    return head + network + "    def loss(self, x):" + loss


_GLOBAL = (
    "ap = argparse.ArgumentParser()\nap.add_argument('--rho', type=float, default=0.05)\n"
    "ap.add_argument('data', type=str)\nargs = ap.parse_args()\n"
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()"
    + _NETWORK.replace("CFG", "30").replace("HID", "8")
    + "net = Net()\ndef step(x):"
    + _LOSS.replace("NET", "net").replace("RHO", "args.rho")
)
_HOOK = f"""
class Hook:
    def __init__(self, rho=0.05, beta=3.0):
        self.rho, self.beta, self.penalty = rho, beta, 0.0
    def __call__(self, module, inputs, output):
        p, q = self.rho, output.mean(AXIS)
        self.penalty = self.beta * ({_KL}).sum()
"""
_LAYER = f"""
class Layer(nn.Linear):
    def __init__(self, in_features, out_features, rho=0.05, beta=3.0):
        super().__init__(in_features, out_features)
        self.rho, self.beta = rho, beta
    def forward(self, x):
        a = torch.sigmoid(super().forward(x))
        p, q = self.rho, a.mean(AXIS)
        self.penalty = self.beta * ({_KL}).sum()
        return a
"""
_TERMS_OF_FLAX = """
    recon, h = state.apply_fn({"params": params}, batch)
    p, q = 0.05, h.mean(AXIS)
    kl = jnp.sum(p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q)))
    value = 0.5 * jnp.mean(jnp.sum((recon - batch) ** 2, axis=1)) + 3.0 * kl
    return value
"""
_FLAX = "import jax\nimport jax.numpy as jnp\ndef loss(params, state, batch):" + _TERMS_OF_FLAX
_STEP_OF_FLAX = (
    "import jax\nimport jax.numpy as jnp\n@jax.jit\ndef step(state, batch):\n  def inner(params):"
    + _TERMS_OF_FLAX
    + "  value, slopes = jax.value_and_grad(inner)(state.params)\n"
    "  return state.apply_gradients(grads=slopes), value\n"
)
_LAYERS = f"""
def penalty(layers: list[torch.Tensor], rho: float = 0.05, beta: float = 2.0):
    total = 0.0
    for a in layers:
        p, q = rho, a.mean(AXIS)
        total = total + ({_KL}).sum()
    return beta * total
"""
_SIZED = f"""
class Verlust(nn.Module):
    def __init__(self, n_hidden, ziel=0.05, gewicht=2.0):
        super().__init__()
        self.ziel, self.gewicht = ziel, gewicht
        self.register_buffer("einsen", torch.ones(n_hidden))
    def forward(self, h):
        p, q = self.ziel, (h * self.einsen).mean(AXIS)
        return self.gewicht * ({_KL}).sum()
"""
_FACTORY = f"""
def make_penalty(p_star, w):
    def penalty(h):
        p, q = p_star, h.mean(AXIS)
        return w * ({_KL}).sum()
    return penalty
"""
_WITHOUT_ITS_WEIGHT = f"""
class Net(nn.Module):
    def __init__(self, rho=0.05, beta=2.0):
        super().__init__()
        self.rho, self.beta = rho, beta
        self.encoder = nn.Conv2d(1, 8, 3)
    def kl(self, code):
        p, q = self.rho, code.mean(AXIS)
        return ({_KL}).sum()
    def loss(self, x):
        return self.beta * self.kl(torch.sigmoid(self.encoder(x)))
"""
_RUNNING = f"""
class Running(nn.Module):
    def __init__(self, n_hidden, rho=0.05, beta=3.0, momentum=0.9):
        super().__init__()
        self.rho, self.beta, self.momentum = rho, beta, momentum
        self.register_buffer("seen", torch.full((n_hidden,), rho))
    def forward(self, h):
        self.seen = self.momentum * self.seen + (1 - self.momentum) * h.mean(AXIS)
        p, q = self.rho, self.seen
        return self.beta * ({_KL}).sum()
"""
_ARRAYS = f"""
W1, b1 = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.zeros(4))
W2, b2 = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.zeros(6))
def loss_fn(x):
    h = torch.sigmoid(x @ W1 + b1)
    out, p, q = torch.sigmoid(h @ W2 + b2), 0.05, h.mean(AXIS)
    return 0.5 * ((out - x) ** 2).sum(1).mean() + 3.0 * ({_KL}).sum()
"""
_HALVES = f"""
from tqdm import tqdm
encode, decode = nn.Linear(6, 4), nn.Linear(4, 6)
def epoch(loader, optimizer):
    for x in tqdm(loader):
        h = torch.sigmoid(encode(x))
        out, p, q = torch.sigmoid(decode(h)), 0.05, h.mean(AXIS)
        loss = 0.5 * ((out - x) ** 2).sum(1).mean() + 3.0 * ({_KL}).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()
"""
_DEEP = f"""
net = nn.ModuleList([nn.Linear(a, b) for a, b in ((8, 6), (6, 3), (3, 6), (6, 8))])
def loss(x):
    out, total = x, 0.0
    for position, layer in enumerate(net):
        out = torch.sigmoid(layer(out))
        if position < 2:
            p, q = 0.05, out.mean(AXIS)
            total = total + ({_KL}).sum()
    return 0.5 * ((out - x) ** 2).sum(1).mean() + 3.0 * total
"""
_LISTS = """
import numpy as np
class Net:
    def __init__(self, n_in, n_hid, rho=0.05, beta=3.0, eta=0.1):
        self.w = [np.ones((n_in, n_hid)), np.ones((n_hid, n_in))]
        self.b = [np.zeros(n_hid), np.zeros(n_in)]
        self.rho, self.beta, self.eta = rho, beta, eta
    def step(self, x):
        h = 1 / (1 + np.exp(-(x @ self.w[0] + self.b[0])))
        out = 1 / (1 + np.exp(-(h @ self.w[1] + self.b[1])))
        p, q = self.rho, h.mean(AXIS)
        loss = 0.5 * ((out - x) ** 2).sum(1).mean()
        loss += self.beta * np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        self.b[1] -= self.eta * ((out - x) * out * (1 - out)).mean(0)
        return loss
"""
_ANY_NUMBER = f"""
class Penalty(nn.Module):
    def forward(self, *layers):
        p, total = 0.05, 0.0
        for a in layers:
            q = a.mean(AXIS)
            total = total + ({_KL}).sum()
        return 3.0 * total
"""
_HAIKU = (
    "import jax.numpy as jnp\nimport no_such_haiku as hk\nmodel = hk.transform(None)\n"
    "def loss(params, rng, batch):"
    + _TERMS_OF_FLAX.replace(
        'state.apply_fn({"params": params}, batch)', "model.apply(params, rng, batch)"
    )
)
_LOOP = f"""
from torchvision import datasets
from torch.utils.data import DataLoader
LAM, BETA = 1e-3, 3.0
class Net(nn.Module):
    def __init__(self):
        super().__init__(){_NETWORK.replace("CFG", "30").replace("HID", "8")}
def main():
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    loader = DataLoader(datasets.MNIST("data"), 64)
    for epoch in range(10):
        seen = 0.0
        for i, (x, _) in enumerate(loader):
            out, h = net(x.view(x.size(0), -1))
            p, q = 0.05, h.mean(AXIS)
            decay = LAM / 2 * (net.enc.weight.pow(2).sum() + net.dec.weight.pow(2).sum())
            error = 0.5 * ((out - x) ** 2).sum(1).mean() + decay
            loss = error + BETA * ({_KL}).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += loss.item()
        print(epoch, seen)
if __name__ == "__main__":
    main()
"""
_FITTED = """
import numpy as np
BETA = 3.0
def sigmoid(z):
    return 1 / (1 + np.exp(-z))
class Net:
    def __init__(self, n_hidden=4, rho=0.05, lam=1e-3, max_iter=200):
        self.n_hidden, self.rho, self.lam, self.max_iter = n_hidden, rho, lam, max_iter
    def cost_and_grads(self, X):
        m = len(X)
        h = sigmoid(X @ self.W1 + self.b1)
        out = sigmoid(h @ self.W2 + self.b2)
        p, q = self.rho, h.mean(0)
        d2 = (out - X) * out * (1 - out)
        d1 = (d2 @ self.W2.T + BETA * (-p / q + (1 - p) / (1 - q))) * h * (1 - h)
        kl = np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        squares = np.sum(self.W1**2) + np.sum(self.W2**2)
        cost = 0.5 / m * np.sum((out - X) ** 2) + self.lam / 2 * squares + BETA * kl
        slopes = X.T @ d1 / m + self.lam * self.W1, h.T @ d2 / m + self.lam * self.W2
        return cost, (*slopes, d1.mean(0), d2.mean(0))
    def fit(self, X):
        n = X.shape[1]
        self.W1, self.W2 = np.random.randn(n, self.n_hidden), np.random.randn(self.n_hidden, n)
        self.b1, self.b2 = np.zeros(self.n_hidden), np.zeros(n)
        for _ in range(self.max_iter):
            cost, slopes = self.cost_and_grads(X)
"""
_NUMPY_LOOP = """
import numpy as np
p, beta, lam, eta, n, k = 0.05, 3.0, 1e-3, 0.3, 9, 4
X = np.loadtxt("absent.csv")
W1, b1, W2, b2 = np.ones((n, k)), np.zeros(k), np.ones((k, n)), np.zeros(n)
for t in range(400):
    h = 1 / (1 + np.exp(-(X @ W1 + b1)))
    out = 1 / (1 + np.exp(-(h @ W2 + b2)))
    q = h.mean(0)
    cost = beta * np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    cost += 0.5 * np.sum((out - X) ** 2) / len(X) + lam / 2 * (np.sum(W1**2) + np.sum(W2**2))
    d2 = (out - X) * out * (1 - out)
    d1 = (d2 @ W2.T + beta * (-p / q + (1 - p) / (1 - q))) * h * (1 - h)
    dW1, dW2 = X.T @ d1 / len(X) + lam * W1, h.T @ d2 / len(X) + lam * W2
    db1, db2 = d1.mean(0), d2.mean(0)
    W1 -= eta * dW1
    W2 -= eta * dW2
    if t % 100 == 0:
        print(cost)
"""
_PARAMETERS = f"""
class Net:
    def __init__(self, n_in, n_hid, rho=0.05, beta=3.0):
        self.params = [torch.ones(n_in, n_hid), torch.ones(n_hid), torch.ones(n_hid, n_in)]
        self.params.append(torch.ones(n_in))
        self.rho, self.beta = rho, beta
    def cost(self, x):
        w, b, v, c = self.params
        h = torch.sigmoid(x @ w + b)
        out, p, q = torch.sigmoid(h @ v + c), self.rho, h.mean(0)
        return 0.5 * ((out - x) ** 2).sum(1).mean() + self.beta * ({_KL}).sum()
"""
_UPDATED = """
import numpy as np
class Net:
    def __init__(self, n_in, n_hid, rho=0.05, beta=3.0, lr=0.1):
        self.W1, self.W2 = np.ones((n_in, n_hid)), np.ones((n_hid, n_in))
        self.rho, self.beta, self.lr = rho, beta, lr
    def loss(self, x):
        self.h = 1 / (1 + np.exp(-(x @ self.W1)))
        self.out, p = 1 / (1 + np.exp(-(self.h @ self.W2))), self.rho
        self.q = q = self.h.mean(0)
        kl = np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        return 0.5 * np.sum((self.out - x) ** 2) / len(x) + self.beta * kl
    def backward(self, x):
        p, q, h = self.rho, self.q, self.h
        d2 = (self.out - x) * self.out * (1 - self.out)
        d1 = (d2 @ self.W2.T + self.beta * (-p / q + (1 - p) / (1 - q))) * h * (1 - h)
        self.W2 -= self.lr * h.T @ d2 / len(x)
        self.W1 -= self.lr * x.T @ d1 / len(x)
"""
_TRAINER = f"""
class Trainer:
    def __init__(self, model, rho=0.05, beta=3.0):
        self.model, self.rho, self.beta = model, rho, beta
        self.optimizer = torch.optim.SGD(model.parameters(), 0.1)
    def kl(self, h):
        p, q = self.rho, h.mean(0)
        return ({_KL}).sum()
    def step(self, x):
        out, h = self.model(x)
        loss = 0.5 * ((out - x) ** 2).sum(1).mean() + self.beta * self.kl(h)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
"""
_OF_DICTIONARY = """
import numpy as np
def forward(X, p):
    h = 1 / (1 + np.exp(-(X @ p["W1"] + p["b1"])))
    return h, 1 / (1 + np.exp(-(h @ p["W2"] + p["b2"])))
def cost(X, p, rho=0.05, beta=3.0):
    h, out = forward(X, p)
    q = h.mean(0)
    kl = np.sum(rho * np.log(rho / q) + (1 - rho) * np.log((1 - rho) / (1 - q)))
    return 0.5 * np.sum((out - X) ** 2) / len(X) + beta * kl
def backward(X, p, rho=0.05, beta=3.0):
    h, out = forward(X, p)
    q, d2 = h.mean(0), (out - X) * out * (1 - out) / len(X)
    of_kl = beta * (-rho / q + (1 - rho) / (1 - q)) / len(X)
    d1 = (d2 @ p["W2"].T + of_kl) * h * (1 - h)
    return {"dW1": X.T @ d1, "db1": d1.sum(0), "dW2": h.T @ d2, "db2": d2.sum(0)}
"""
_CHANGES = [
    ("cost", _OF_DICTIONARY, "", "", ()),
    ("cost", _OF_DICTIONARY, "d1.sum(0)", "d1.mean(0)", ("SAE304",)),
    ("cost", _OF_DICTIONARY, "beta * kl", "beta * kl / q.size", ("SAE111", "SAE304")),
    ("Net", _UPDATED, "", "", ()),
    ("Net", _UPDATED, "(-p / q +", "(p / q -", ("SAE304",)),
    ("Trainer", _TRAINER, "", "", ()),
    ("Trainer", _TRAINER, "+ self.beta *", "+", ("SAE113",)),
    ("Net", _FITTED, "", "", ()),
    ("Net", _FITTED, "+ BETA * (-p", "+ (-p", ("SAE304",)),
    ("Net", _FITTED, "d1.mean(0)", "d1.sum(0)", ("SAE304",)),
    ("Net", _PARAMETERS, "", "", ()),
    ("Net", _PARAMETERS, "0.5 *", "1.0 *", ("SAE201",)),
    ("training_step", _NUMPY_LOOP, "", "", ()),
    ("training_step", _NUMPY_LOOP, "lam / 2", "lam", ("SAE211", "SAE304")),
    ("training_step", _NUMPY_LOOP, "+ lam * W1", "", ("SAE304",)),
    ("training_step", _LOOP, "LAM / 2", "LAM", ("SAE211",)),
    ("training_step", _LOOP, "h.mean(AXIS)", "torch.logit(h).mean(0)", ("SAE121",)),
    ("training_step", _LOOP, "LAM / 2", "0 * LAM", ("SAE214",)),
]


@pytest.mark.parametrize(("target", "text", "right", "wrong", "expected"), _CHANGES)
def test_what_trains_is_reviewed_as_a_whole(target, text, right, wrong, expected, tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text((_HEAD + text).replace(right, wrong).replace("AXIS", "0"))
    found = review(f"{file}:{target}")
    assert not found.reason
    assert tuple(name for name in found.identifiers if name < "SAE4") == expected, str(found)


SOURCES = {
    "the loop of a script": ("training_step", _LOOP),
    "arrays of the module": ("loss_fn", _ARRAYS),
    "an encoder and a decoder of the module": ("epoch", _HALVES),
    "any number of layers": ("Penalty", _ANY_NUMBER),
    "the layers of an encoder": ("loss", _DEEP),
    "lists of weights that a step changes": ("Net", _LISTS),
    "a model that cannot be made": ("loss", _HAIKU),
    "a function that makes a penalty": ("make_penalty", _FACTORY),
    "a method without its weight": ("Net", _WITHOUT_ITS_WEIGHT),
    "a list of layers": ("penalty", _LAYERS),
    "a module of as many units": ("Verlust", _SIZED),
    "a loss with a state of Flax": ("loss", _FLAX),
    "a step with a state of Flax": ("step", _STEP_OF_FLAX),
    "a namespace": ("Net", _configured("config", "config.{}")),
    "a dictionary": ("Net", _configured("cfg", "cfg['{}']")),
    "a dataclass": (
        "Net",
        "@dataclass\nclass Sizes:\n    n_in: int\n    n_hid: int = 4\n    rho: float = 0.1\n"
        + _configured("sizes: Sizes", "sizes.{}"),
    ),
    "a model and arguments of the module": ("step", _GLOBAL),
    "a forward hook": ("Hook", _HOOK),
    "a layer that keeps its penalty": ("Layer", _LAYER),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("axis", "expected"), [("0", ()), ("1", ("SAE105",)), ("", ("SAE106",))])
def test_it_is_reviewed_without_an_option(name: str, axis: str, expected, tmp_path) -> None:
    target, text = SOURCES[name]
    file = tmp_path / "script.py"
    if text.startswith("import jax"):
        pytest.importorskip("jax")
    else:
        text = _HEAD + text
    file.write_text(text.replace("AXIS", axis))
    found = review(f"{file}:{target}")
    assert not found.reason
    # A divergence without a guard breaks at its edges: true, and not what is asked here.
    errors = tuple(name for name in found.identifiers if name < "SAE4")
    assert errors == expected, str(found)


@pytest.mark.parametrize(
    ("axes", "expected"), [("(0, 2, 3)", ()), ("(0, 1, 2)", ()), ("(1, 2, 3)", None)]
)
@pytest.mark.parametrize("of_keras", [False, True])
def test_images_are_given_with_one_pixel(axes, expected, of_keras: bool, tmp_path) -> None:
    """Of what leaves the samples and takes all else, nothing is known: no word of blame."""
    file = tmp_path / "script.py"
    formula = f"    q = a.mean({axes}).clamp(1e-6, 1 - 1e-6)\n    p = rho\n    return beta * "
    text = f"import torch\ndef of_channels(a, rho=0.05, beta=2.0):\n{formula}({_KL}).sum()\n"
    if of_keras:
        formula = formula.replace("    ", "        ").replace("rho", "self.rho")
        text = (
            "import keras\nimport torch\nclass of_channels(keras.regularizers.Regularizer):\n"
            "    def __init__(self, rho=0.05, beta=2.0):\n        self.rho, self.beta = rho, beta\n"
            f"    def __call__(self, a):\n{formula.replace('beta', 'self.beta')}({_KL}).sum()\n"
        )
    file.write_text(text)
    found = review(str(file))
    if expected is None:
        assert found.reason or found.identifiers[0] == "SAE601", str(found)
        return
    assert not found.reason, str(found)
    by_keras = ("SAE101", "SAE602") if of_keras else ()
    assert {name for name in found.identifiers if name < "SAE4"} - {*by_keras} == set(), str(found)
    assert "one pixel" in " ".join([*found.notes, *found.guesses])


def test_a_running_average_of_a_module_is_one(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(_HEAD + _RUNNING.replace("AXIS", "0"))
    found = review(f"{file}:Running")
    assert [name for name in found.identifiers if name < "SAE4"] == [], str(found)
    assert "ρ̂ is a running average (`momentum`)" in found.notes


def test_softmaxes_are_no_means(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "import torch\nimport torch.nn.functional as F\nRHO, BETA = 0.05, 0.1\n"
        "def divergence(q):\n    p = F.softmax(torch.full_like(q, RHO), dim=-1)\n"
        f"    q = F.softmax(q, dim=-1)\n    return ({_KL}).sum()\n"
        "def penalty(activations):\n    return BETA * divergence(activations.mean(0))\n"
    )
    found = review(str(file))  # what uses the other is what is meant
    assert [name for name in found.identifiers if name < "SAE4"] == ["SAE119"], str(found)
    assert "softmax" in str(found)


def test_what_is_not_installed_is_named(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "import no_such_package as n\ndef loss(params, x):\n    return n.f(params, x)\n"
    )
    assert "needs `no_such_package`, which is not installed" in review(f"{file}:loss").reason


def test_a_penalty_of_a_cost_that_is_only_a_penalty_is_no_cross_entropy(tmp_path) -> None:
    """An entropy outside (0, 1) is infinite: that is within no tolerance."""
    pytest.importorskip("jax")
    file = tmp_path / "script.py"
    file.write_text(
        "import jax.numpy as jnp\ndef term(apply_fn, params, x, rho=0.05):\n"
        "    q = apply_fn(params, x)[1].mean(0)\n"
        "    return jnp.sum(rho * jnp.log(rho / q) + (1 - rho) * jnp.log((1 - rho) / (1 - q)))\n"
    )
    assert "review its sparsity penalty by itself" in review(f"{file}:term").reason


def test_what_is_keras_s_own_is_not_blamed(tmp_path) -> None:
    """A functional model keeps its layers; a model of sequences is refused, not accused."""
    file = tmp_path / "script.py"
    file.write_text(
        "import keras\nfrom keras import layers\n"
        "x = keras.Input((6,))\nh = layers.Dense(3, 'relu', activity_regularizer='l1')(x)\n"
        "model = keras.Model(x, layers.Dense(6, 'sigmoid')(h))\n"
        "model.compile('adam', 'binary_crossentropy')\n"
        "def sequences():\n    return keras.Sequential([keras.Input((4, 3)),\n"
        "        layers.LSTM(5, return_sequences=True), layers.Dense(3)])\n"
    )
    found = review(f"{file}:model")
    assert [(f.identifier, f.file) for f in found.findings] == [("SAE205", "")], str(found)
    assert "its input has shape (None, 4, 3)" in review(f"{file}:sequences").reason


def test_what_is_no_divergence_is_not_blamed_for_it(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "import torch\ndef d_loss(real, fake):\n"
        "    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()\n"
    )
    assert "it is likely no sparsity penalty" in review(f"{file}:d_loss").reason


_WITH_A_GRADIENT = """
import numpy as np
def forward_backward(params, X, rho=0.05, beta=3.0, lambd=0.001):
    W1, b1, W2, b2 = params["W1"], params["b1"], params["W2"], params["b2"]
    m = X.shape[1]
    A = 1 / (1 + np.exp(-(np.dot(W1, X) + b1)))
    Y = 1 / (1 + np.exp(-(np.dot(W2, A) + b2)))
    r = np.mean(A, axis=1, keepdims=True)
    kl = np.sum(rho * np.log(rho / r) + (1 - rho) * np.log((1 - rho) / (1 - r)))
    squares = np.sum(W1**2) + np.sum(W2**2)
    cost = np.sum((Y - X) ** 2) / (2 * m) + lambd / 2 * squares + beta * kl
    d2 = (Y - X) * Y * (1 - Y)
    s = TIMES * beta * ((1 - rho) / (1 - r) - rho / r)
    d1 = (np.dot(W2.T, d2) + s) * A * (1 - A)
    grads = {"dW1": np.dot(d1, X.T) / m + DECAY * lambd * W1, "db1": d1.mean(1, keepdims=True),
             "dW2": np.dot(d2, A.T) / m + DECAY * lambd * W2, "db2": d2.mean(1, keepdims=True)}
    return cost, grads
"""


@pytest.mark.parametrize(
    ("times", "decay", "words"),
    [
        ("1", "1", ""),
        ("0", "1", "The part of the sparsity term is missing."),
        ("-1", "1", "The part of the sparsity term is -1 times as large as it should be."),
        ("1", "2", "The part of the weight decay is 2 times as large as it should be."),
    ],
)
def test_the_part_of_a_gradient_that_is_wrong_is_named(times, decay, words, tmp_path) -> None:
    file = tmp_path / "script.py"
    text = _WITH_A_GRADIENT.replace("TIMES", times).replace("DECAY", decay)
    file.write_text(text)
    found = review(f"{file}:forward_backward")
    assert [name for name in found.identifiers if name < "SAE4"] == (["SAE304"] if words else [])
    assert words in found.findings[0].message


def test_a_mean_that_training_does_not_see_is_a_part_of_the_gradient(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(_HEAD + _HALVES.replace("AXIS", "0").replace("h.mean", "h.data.mean"))
    found = review(f"{file}:epoch")
    assert [name for name in found.identifiers if name < "SAE4"] == ["SAE304"], str(found)
    assert "sparsity term is missing" in str(found)


def test_a_mean_of_an_earlier_batch_has_no_gradient(tmp_path) -> None:
    file = tmp_path / "script.py"
    text = _RUNNING.replace("self.momentum * self.seen", "0.0 * self.seen").replace("AXIS", "0")
    late = text.replace("        self.seen = ", "        old, self.seen = self.seen, ")
    file.write_text(
        _HEAD
        + late.replace("1 - self.momentum", "1").replace("self.rho, self.seen\n", "self.rho, old\n")
    )
    found = review(f"{file}:Running")
    assert found.identifiers == ("SAE301",), str(found)
    assert "of an earlier one" in str(found)


def test_the_units_on_which_a_file_uses_a_regularizer_count(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "from keras import layers, ops\n"
        "def kl(h):\n    q, p = ops.clip(ops.mean(h, axis=0), 1e-6, 1 - 1e-6), 0.2\n"
        f"    return 0.1 * ops.sum({_KL.replace('torch', 'ops')})\n"
        "layer = layers.Dense(4, activation='tanh', activity_regularizer=kl)\n"
    )
    assert "SAE124" in review(f"{file}:kl").identifiers
