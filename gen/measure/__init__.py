"""Measurements of engines and whole accelerators, and their reports."""
