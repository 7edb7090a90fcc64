"""Dot engines and their contract: activations × ternary weights, many a cycle."""
