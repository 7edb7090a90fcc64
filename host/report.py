"""What an offload did, in numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["LayerReport", "Report", "Totals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What products on a device took. The writing of weights is not counted.

    Members
    -------
    calls : calls of modules
    tokens : tokens in these calls, padding included
    cycles : device cycles
    bytes_tx, bytes_rx : bytes to and from the device
    seconds : time for which the host waited for products
    checks : calls that were compared with the golden model
    """

    calls: int = 0
    tokens: int = 0
    cycles: int = 0
    bytes_tx: int = 0
    bytes_rx: int = 0
    seconds: float = 0.0
    checks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport(Totals):
    """What one layer did on the device.

    Members
    -------
    name : of the module in the model
    out_features, in_features : of the layer
    where : URL of the device
    """

    name: str
    out_features: int
    in_features: int
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an offload did; `str()` is a table.

    Members
    -------
    layers : one report for each offloaded layer
    not_offloaded : names of the BitLinear layers that torch computes, because `match` or the
        device's memory left them
    on_host : one report for each of these that did not fit, with the calls, tokens and seconds that
        torch took; they are not in `total`. Empty with `compile=True`
    programs : one report for each feed-forward that a program of the vector unit computes: gate and
        up, relu² · up, norm and down. Its calls are not calls of its layers
    without_program : name of each other feed-forward, and why; empty without a vector unit
    """

    layers: tuple[LayerReport, ...]
    not_offloaded: tuple[str, ...]
    programs: tuple[LayerReport, ...] = ()
    without_program: tuple[tuple[str, str], ...] = ()
    on_host: tuple[LayerReport, ...] = ()

    @property
    def host_seconds(self) -> float:
        """What torch took for the layers that did not fit the device."""
        return sum(layer.seconds for layer in self.on_host)

    @property
    def total(self) -> Totals:
        """Sums over the layers and programs."""
        return Totals(
            **{
                counter.name: sum(
                    getattr(each, counter.name) for each in (*self.layers, *self.programs)
                )
                for counter in fields(Totals)
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON can hold."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "total": asdict(self.total),
            "not_offloaded": list(self.not_offloaded),
            "on_host": [asdict(layer) for layer in self.on_host],
            "host_seconds": self.host_seconds,
            "programs": [asdict(program) for program in self.programs],
            "without_program": dict(self.without_program),
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        rows = [["layer", "shape", "where", *(counter.name for counter in fields(Totals))]]
        for layer in (*self.layers, *self.programs, *self.on_host):
            shape = f"{layer.out_features}×{layer.in_features}"
            rows.append([layer.name, shape, layer.where, *_cells(layer)])
        rows.append(
            ["total on the device" if self.on_host else "total", "", "", *_cells(self.total)]
        )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i in (0, 2) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        if self.not_offloaded:
            lines.append(f"left to torch: {', '.join(self.not_offloaded)}")
        if self.on_host:
            lines.append(
                f"{len(self.on_host)} layers that did not fit took torch {self.host_seconds:.3f} s"
            )
        lines += [f"no program for {name}: {why}" for name, why in self.without_program]
        return "\n".join(lines)


def _cells(totals: Totals) -> list[str]:
    values = {counter.name: getattr(totals, counter.name) for counter in fields(Totals)}
    return [f"{value:.3f}" if name == "seconds" else f"{value:,}" for name, value in values.items()]
