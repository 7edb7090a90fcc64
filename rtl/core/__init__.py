"""The BitLinear core: activations, engine, partial sums, and the order of a layer."""
