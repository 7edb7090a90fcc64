"""Code with a bug put in, to show that a check finds it."""

import inspect
import types


def broken(module, old, new):
    """A copy of a module with one piece of its source replaced."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{module.__name__} must have {old!r} once to be broken there"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), copy.__dict__)
    return copy
