"""The cost of the whole training set: exact, in chunks, and L-BFGS over it."""
