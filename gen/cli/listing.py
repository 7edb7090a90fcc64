"""The tensors of a model's file, as `tritloom info FILE` lists them."""

from typing import TYPE_CHECKING

from tritloom.gen.cli.text import Column, columns, count, fill, paint, table

if TYPE_CHECKING:
    from tritloom.host.checkpoints.gguf import GgufFile, TensorFacts

__all__ = ["gguf_lines"]


def gguf_lines(file: "GgufFile", tensors: "list[TensorFacts]") -> list[str]:
    """The lines of a listing: what the file is, a table of its tensors, and what does not fit.

    Parameters
    ----------
    file : a GGUF file
    tensors : what its `facts` gives
    """
    architecture = file.header.metadata.get("general.architecture", "unknown")
    fitting = [tensor for tensor in tensors if tensor.fits]
    ternary = [tensor for tensor in tensors if tensor.group is not None]
    weights = sum(tensor.shape[0] * tensor.shape[1] for tensor in fitting)
    summary = (
        f"{file.header.path.name}: GGUF {file.header.version}, architecture {architecture}, "
        f"{count(len(tensors), 'tensor')}, of these {len(ternary)} ternary; {len(fitting)} with "
        f"{weights:,} weights fit a device of today"
    )
    heads = [
        Column("tensor", wraps=True),
        *(Column("type"), Column("shape", right=True), Column("bytes", right=True)),
        *(Column("scales", right=True), Column("fits")),
    ]
    rows = [
        (
            tensor.name,
            tensor.type,
            " × ".join(map(str, tensor.shape)),
            f"{tensor.bytes:,}",
            _scales(tensor),
            "" if tensor.group is None else "yes" if tensor.fits else "no",
        )
        for tensor in tensors
    ]
    reasons = [tensor.reason for tensor in tensors if tensor.reason]
    lines = [paint(fill(summary, columns()), "bold"), "", *table(heads, rows)]
    if reasons:
        lines += ["", *(paint(fill(reason, columns()), "yellow") for reason in reasons)]
    return lines


def _scales(tensor: "TensorFacts") -> str:
    """How many scales a tensor uses, with the inputs that share one where there are several."""
    if tensor.scales is None:
        return ""
    return "1" if tensor.scales == 1 else f"{tensor.scales:,} by {tensor.group}"
