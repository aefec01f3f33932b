"""Formulas that were published, each in a few lines of our own; docs/audit.md prints them."""

import keras
import torch
from keras import backend as K  # noqa: N812


class AnsweredRegularizer(keras.regularizers.Regularizer):
    def __init__(self, p=0.1, sparsityBeta=3):  # noqa: N803
        self.p = p
        self.sparsityBeta = sparsityBeta

    def __call__(self, x):
        q = K.mean(x, axis=0)
        ones, zeros = self.p * K.log(self.p / q), (1 - self.p) * K.log((1 - self.p) / (1 - q))
        return self.sparsityBeta * K.sum(ones + zeros)

    def get_config(self):
        return {"name": type(self).__name__}


def without_parentheses(hidden, rho=0.05, beta=3.0):
    q = hidden.mean(0)
    return beta * (rho * torch.log(rho / q) + (1 - rho) * torch.log(1 - rho / 1 - q)).sum()


def clipped(hidden, rho=0.05, beta=3.0):
    q = torch.clamp(hidden.mean(0), 1e-3, 1 - 1e-3)
    return beta * (rho * torch.log(rho / q) + (1 - rho) * torch.log((1 - rho) / (1 - q))).sum()


def over_the_units(hidden, rho=0.05, beta=3.0):
    q = torch.mean(hidden, dim=1)
    return beta * (rho * torch.log(rho / q) + (1 - rho) * torch.log((1 - rho) / (1 - q))).sum()


class WeightIsStored(torch.nn.Module):
    def __init__(self, rho=0.05, weight=3.0):
        super().__init__()
        self.rho = rho
        self.weight = weight

    def forward(self, hidden):
        q, rho = hidden.mean(0), self.rho
        return (rho * torch.log(rho / q) + (1 - rho) * torch.log((1 - rho) / (1 - q))).sum()


class RunningAverage(torch.nn.Module):
    def __init__(self, rho=0.05, beta=3.0, momentum=0.9):
        super().__init__()
        self.rho, self.beta, self.momentum = rho, beta, momentum
        self.register_buffer("q", None)

    def forward(self, hidden):
        batch = hidden.detach().mean(0)
        kept = batch if self.q is None else self.q
        self.q = q = self.momentum * kept + (1 - self.momentum) * batch
        zeros = (1 - self.rho) * torch.log((1 - self.rho) / (1 - q))
        return self.beta * (self.rho * torch.log(self.rho / q) + zeros).sum()
