"""Hardware: configuration, encodings and Amaranth components."""
