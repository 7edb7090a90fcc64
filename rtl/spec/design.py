"""Facts of an emitted design that its writer and its readers share."""

MANIFEST = "manifest.json"
"""The file that describes the design."""
FORMAT = 3
"""Version of the manifest's form; a key that changes its meaning or goes away raises it."""
