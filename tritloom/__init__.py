"""Tritloom: hardware for ternary matrix products, generated, verified and driven.

The folders `rtl`, `gen`, `sim`, `boards` and `host` of the sources are the sub-packages of this
package; `pyproject.toml` maps them. This folder has only what belongs to no one of them.
"""

__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, looked up in the metadata of the installation when it is needed."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("tritloom")
