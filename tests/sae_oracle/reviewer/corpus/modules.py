"""torch modules, losses and functions; imported where torch is."""

from __future__ import annotations

import torch
from torch import nn

EPSILON = 1e-7


def _kl(rho, r):
    ones, zeros = rho / (r + EPSILON), (1 - rho) / (1 - r + EPSILON)
    return rho * torch.log(ones) + (1 - rho) * torch.log(zeros)


class Penalty(nn.Module):
    """The sparsity term of sigmoid units."""

    def __init__(self, rho=0.05, beta=3.0):
        super().__init__()
        self.rho = rho
        self.beta = beta

    def rho_hat(self, a):
        return a.mean(dim=0)

    def forward(self, a):
        return self.beta * _kl(self.rho, self.rho_hat(a)).sum()


class WrongAxis(Penalty):
    """The sparsity term of sigmoid units."""

    def rho_hat(self, a):
        return a.mean(dim=1)


class SecondSigmoid(Penalty):
    """The sparsity term of sigmoid units."""

    def rho_hat(self, a):
        return torch.sigmoid(a).mean(dim=0)


class Detached(Penalty):
    """The sparsity term of sigmoid units."""

    def rho_hat(self, a):
        return a.detach().mean(dim=0)


class Clamped(Penalty):
    """The sparsity term of sigmoid units."""

    def rho_hat(self, a):
        return a.mean(dim=0).clamp(1e-6, 1 - 1e-6)


class KeepsItsPenalty(Penalty):
    """Passes its input through and keeps the sparsity term of sigmoid units."""

    def forward(self, a):
        self.penalty = super().forward(a)
        return a


class KeepsMeanOfAll(KeepsItsPenalty):
    """Passes its input through and keeps the sparsity term of sigmoid units."""

    def rho_hat(self, a):
        return a.mean()


def of_tensors(p, q):
    """KL of sigmoid units; p is a tensor."""
    return torch.sum(p * torch.log(p / (q + EPSILON))) + torch.sum(
        (1 - p) * torch.log((1 - p) / (1 - q + EPSILON))
    )


@torch.jit.script
def scripted(a: torch.Tensor, rho: float = 0.05):
    """The sparsity term of sigmoid units."""
    q = torch.mean(a, 1) + 1e-7
    return torch.sum(rho * torch.log(rho / q) + (1 - rho) * torch.log((1 - rho) / (1 - q + 2e-7)))


class TrainingLoss(nn.Module):
    """The cost of sigmoid units from outputs, inputs and hidden activations."""

    def __init__(self, rho=0.05, beta=3.0):
        super().__init__()
        self.rho = rho
        self.beta = beta

    def forward(self, x_hat, x, hidden):
        error = 0.5 * (x_hat - x).pow(2).sum(dim=1).mean()
        return error + self.beta * _kl(self.rho, hidden.mean(dim=0)).sum()


def training_loss_of_means(output, target, encoded, rho=0.05, beta=3.0):
    """The cost of sigmoid units."""
    return nn.functional.mse_loss(output, target) + beta * _kl(rho, encoded.mean(1)).sum()


def of_the_model(model, x, rho=0.05, beta=3.0):
    """The cost of sigmoid units."""
    output, hidden = model(x)
    return 0.5 * (output - x).pow(2).sum(1).mean() + beta * _kl(rho, hidden.mean()).sum()


def mean_of_all_for_each_unit(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    return beta * a.shape[1] * _kl(rho, a.mean())


def epoch(model, loader, optimizer, device, rho=0.05, beta=3.0):
    """An epoch with sigmoid units."""
    total = 0.0
    for x, _ in loader:
        output, hidden = model(x.to(device))
        loss = 0.5 * (output - x).pow(2).sum(1).mean() + beta * _kl(rho, hidden.mean(1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def half_squared_error(input, target):
    return 0.5 * (input - target).pow(2).sum(dim=1).mean()


class Autoencoder(nn.Module):
    """An autoencoder with its cost."""

    axis = 0

    def __init__(self, n_visible, n_hidden, rho=0.05, beta=3.0, weight_decay=1e-3):
        super().__init__()
        self.encoder = nn.Linear(n_visible, n_hidden)
        self.decoder = nn.Linear(n_hidden, n_visible)
        self.rho, self.beta, self.weight_decay = rho, beta, weight_decay

    def forward(self, x):
        hidden = torch.sigmoid(self.encoder(x))
        return torch.sigmoid(self.decoder(hidden)), hidden

    def loss(self, x):
        output, hidden = self(x)
        kernels = (self.encoder.weight, self.decoder.weight)
        decay = 0.5 * self.weight_decay * sum(w.pow(2).sum() for w in kernels)
        sparsity = self.beta * _kl(self.rho, hidden.mean(self.axis)).sum()
        return 0.5 * (output - x).pow(2).sum(1).mean() + decay + sparsity


class AutoencoderWithWrongAxis(Autoencoder):
    """An autoencoder with its cost."""

    axis = 1


class AutoencoderWithPenalisedOutput(Autoencoder):
    """An autoencoder with its cost."""

    def forward(self, x):
        return (super().forward(x)[0],) * 2


class WideAutoencoder(Autoencoder):
    """An autoencoder with its cost, of the sizes of the exercise."""

    def __init__(self, n_visible=64, n_hidden=25, rho=0.01, beta=3.0, weight_decay=1e-4):
        super().__init__(n_visible, n_hidden, rho, beta, weight_decay)


class StepOfTraining(nn.Module):
    """An autoencoder with a step of its training, which is given ρ and β."""

    def __init__(self, n_visible=16, n_hidden=6):
        super().__init__()
        self.encoder = nn.Linear(n_visible, n_hidden)
        self.decoder = nn.Linear(n_hidden, n_visible)

    def forward(self, x):
        hidden = torch.sigmoid(self.encoder(x))
        return self.decoder(hidden), hidden

    def training_step(self, batch, batch_idx, rho=0.05, beta=3.0):
        x, _ = batch
        output, hidden = self(x)
        return 0.5 * (output - x).pow(2).sum(1).mean() + beta * _kl(rho, hidden.mean(0)).sum()


class ReturnsItsPenalty(nn.Module):
    """An autoencoder whose forward returns the penalty beside the output."""

    def __init__(self, input_dim=8, hidden_dim=4, rho=0.05):
        super().__init__()
        self.fc1 = nn.Linear(input_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, input_dim)
        self.rho = rho

    def forward(self, x):
        hidden = torch.sigmoid(self.fc1(x))
        return self.fc2(hidden), _kl(self.rho, hidden.mean(0)).mean()


def without_logarithm(a, rho=0.05):
    """The sparsity term of sigmoid units."""
    r = a.mean(dim=0)
    p = torch.full_like(r, rho)
    pairs = ((r, p), (1 - r, 1 - p))
    return sum(nn.functional.kl_div(q, wanted, reduction="sum") for q, wanted in pairs)


class Convolutional(nn.Module):
    """Sigmoid units, one mean for each channel."""

    axes = (0, 2, 3)

    def __init__(self, rho=0.05, beta=3.0):
        super().__init__()
        self.rho = rho
        self.beta = beta
        self.encoder = nn.Conv2d(1, 4, 3)
        self.decoder = nn.ConvTranspose2d(4, 1, 3)

    def penalty(self, activations):
        return self.beta * _kl(self.rho, activations.mean(dim=self.axes)).sum()

    def forward(self, x):
        code = torch.sigmoid(self.encoder(x))
        return self.decoder(code), self.penalty(code)


class ConvolutionalOverChannels(Convolutional):
    """Sigmoid units."""

    def penalty(self, activations):
        return self.beta * _kl(self.rho, activations.mean(dim=1)).sum()
