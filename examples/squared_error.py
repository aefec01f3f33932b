"""The squared error of many programs, for `sae-oracle review`: the notes have half of it."""

import numpy as np


def squared_error(output, target):
    return np.mean(np.sum((output - target) ** 2, axis=1))
