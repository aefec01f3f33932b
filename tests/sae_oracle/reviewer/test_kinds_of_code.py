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
SOURCES = {
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
    file.write_text(_HEAD + text.replace("AXIS", axis))
    found = review(f"{file}:{target}")
    assert not found.reason
    # A divergence without a guard breaks at its edges: true, and not what is asked here.
    errors = tuple(name for name in found.identifiers if name < "SAE4")
    assert errors == expected, str(found)


def test_what_is_not_installed_is_named(tmp_path) -> None:
    file = tmp_path / "script.py"
    file.write_text(
        "import no_such_package as n\ndef loss(params, x):\n    return n.f(params, x)\n"
    )
    assert "needs `no_such_package`, which is not installed" in review(f"{file}:loss").reason
