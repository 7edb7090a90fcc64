"""Small parts of hardware: streams, block RAM, adder trees, checksums."""
