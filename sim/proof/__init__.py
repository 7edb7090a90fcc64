"""Formal proofs: properties, and what runs them."""
