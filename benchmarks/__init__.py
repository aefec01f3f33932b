"""What the regularizer costs; `KERAS_BACKEND=torch pytest benchmarks`."""
