# %% [markdown]
# # Edges, in a minute
#
# This page is a program, and what it prints is what came out when the site was built. It trains the
# autoencoder of the notes on patches of two photographs, and looks at what it learned. It runs on
# one core in under two minutes.
#
# The patches are 8×8, less their own mean, and scaled to [0.1, 0.9], as in the notes' assignment.

# %%
from keras_impl import SparseAutoencoder, fit_lbfgs, full_cost
from sae_oracle.datasets import natural_patches

patches = natural_patches(2000).astype("float32")
patches.shape

# %% [markdown]
# 25 hidden units, with the hyperparameters of the notes: each unit should be active in one of a
# hundred patches.

# %%
model = SparseAutoencoder(25, rho=0.01, beta=3.0, weight_decay=1e-4, seed=0)
full_cost(model, patches)

# %% [markdown]
# L-BFGS on the exact cost: ρ̂ is the mean over all patches, not over a batch.

# %%
history = fit_lbfgs(model, patches, iterations=100, verbose=False)
full_cost(model, patches)

# %% [markdown]
# The three terms are those of EQ-COST. Is the number right? The oracle computes it again, in
# float64 NumPy, from the same weights:

# %%
import reference

kernels, biases = [], []
for weight in model.get_weights():
    (kernels if weight.ndim == 2 else biases).append(weight.astype("float64"))
parameters = reference.Parameters(tuple(kernels), tuple(biases))
oracle = reference.cost_and_gradient_with_bounds(
    parameters,
    patches.astype("float64"),
    rho=0.01,
    beta=3.0,
    weight_decay=1e-4,
    precision="float32",
)
error = abs(full_cost(model, patches).total - float(oracle.cost.total.value))
print(f"{error / float(oracle.cost.total.bound):.2g} of its bound")

# %% [markdown]
# At most 1 is right. What did the units learn? For each, the patch of norm 1 that excites it most
# (EQ-FEATURE):

# %%
from sae_oracle.pictures import feature_figure

figure = feature_figure({"what 25 hidden units look for": kernels[0]})
figure
