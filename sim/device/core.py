"""A simulated `Core` alone, without memory, packets and driver: runs layers and counts cycles."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from amaranth.back import rtlil
from amaranth.hdl import Const

from tritloom.rtl.core.activation_scales import scale_layout
from tritloom.rtl.core.core import Core, load_layout, shape_layout, shape_numbers
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.errors import DeviceError
from tritloom.rtl.spec.groups import HALF_PLACES
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import pack_weights
from tritloom.sim.device.cxxrtl import build

__all__ = ["CoreSimulation"]

DRIVER = Path(__file__).with_name("core.cc")
SUM_BITS = 24
"""Bits of a total of scales 1, above its binary places; it has at least as many."""
I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]


class CoreSimulation:
    """Runs layers on the core of a configuration. A weight word is offered in every cycle.

    With scales, all scales are 1, those of the activations too.

    Parameters
    ----------
    config : the core's
    design : returns RTLIL to run in place of the core's own, such as that of a netlist
        (`tritloom.sim.gates.gates`); its module `top` must have the ports of `Core`
    """

    def __init__(
        self, config: AcceleratorConfig, *, design: Callable[[], str] | None = None
    ) -> None:
        self.config = config
        library = build(
            design or (lambda: rtlil.convert(Core(config), name="top", emit_src=False)),
            driver=DRIVER,
        )
        self._calls = ctypes.CDLL(str(library))
        handle, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
        data = ctypes.c_char_p
        for name, result, arguments in (
            ("open", handle, []),
            ("close", None, [handle]),
            ("load", ctypes.c_bool, [handle, data, size, size, number]),
            ("load_scales", ctypes.c_bool, [handle, data, size, size, number]),
            ("run", number, [handle, data, size, data, size, size, number]),
            ("fetch", ctypes.c_bool, [handle, ctypes.c_uint32, data, size, number]),
        ):
            function = getattr(self._calls, f"tritloom_{name}")
            function.restype, function.argtypes = result, arguments

    def layer(self, trits: I8, tokens: I8) -> Iterator[tuple[I64, int]]:
        """Run a layer for some tokens.

        Parameters
        ----------
        trits : int8 [out_features, in_features]
        tokens : int8 [n, in_features], any number of tokens

        Yields
        ------
        tuple[I64, int]
            For each batch of `config.tokens` tokens: int64 [tokens of the batch, out_features], and
            the cycles that the run took.

        Raises
        ------
        DeviceError
            If the core does not come to an end.
        """
        config = self.config
        shape = LayerShape.of(config, *trits.shape)
        image = pack_weights(config, trits)
        words = len(image) // config.word_bytes
        request = _pack(shape_layout(config), **shape_numbers(config, shape))
        bits = config.tokens * config.rows * config.result_bits
        record = -(-bits // 8)
        limit = 4 * (config.run_cycles(shape) or words) + 1000
        ones, one_size = self._ones(shape)
        with self._device() as device:
            scaled = self._calls.tritloom_load_scales(
                device, ones, one_size, len(ones) // one_size, len(ones) + 1000
            )
            for start in range(0, len(tokens), config.tokens):
                batch = tokens[start : start + config.tokens]
                loads, size = self._loads(batch, shape)
                loaded = self._calls.tritloom_load(
                    device, loads, size, len(loads) // size, len(loads) + 1000
                )
                cycles = self._calls.tritloom_run(
                    device, request, len(request), image, config.word_bytes, words, limit
                )
                raw = ctypes.create_string_buffer(record * shape.row_groups)
                fetched = self._calls.tritloom_fetch(
                    device, shape.row_groups, raw, record, 100 * shape.row_groups
                )
                if not (scaled and loaded and cycles and fetched):
                    raise DeviceError("the simulated core does not end a layer in time")
                yield self._results(raw.raw, shape)[: len(batch), : len(trits)], cycles

    @contextmanager
    def _device(self) -> Iterator[int]:
        device = self._calls.tritloom_open()
        try:
            yield device
        finally:
            self._calls.tritloom_close(device)

    def _loads(self, tokens: I8, shape: LayerShape) -> tuple[bytes, int]:
        """The payloads of `i_load` for a batch, filled up to whole tiles, and the bytes of one."""
        config = self.config
        padded = np.zeros((config.tokens, shape.tiles * config.lanes), np.int8)
        padded[: tokens.shape[0], : tokens.shape[1]] = tokens
        bits = padded[..., None] >> np.arange(config.act_bits) & 1
        words = bits.reshape(config.tokens, -1, config.fill * config.act_bits).astype(np.uint8)
        layout = load_layout(config)
        loads = [
            _pack(
                layout,
                token=token,
                address=address,
                word=int.from_bytes(np.packbits(word, bitorder="little").tobytes(), "little"),
            )
            for token, of_token in enumerate(words)
            for address, word in enumerate(of_token)
        ]
        return b"".join(loads), len(loads[0])

    def _ones(self, shape: LayerShape) -> tuple[bytes, int]:
        """The payloads of `i_scale`, and the bytes of one; none if activations have no scales."""
        config = self.config
        if not config.scales_activations:
            return b"", 1
        groups = shape.with_longest(config.most_group_tiles).groups
        one = int(np.float32(1).view(np.uint32))
        layout = scale_layout(config)
        ones = [
            _pack(layout, token=token, group=group, scale=one)
            for token in range(config.tokens)
            for group in range(groups)
        ]
        return b"".join(ones), len(ones[0])

    def _results(self, raw: bytes, shape: LayerShape) -> I64:
        config = self.config
        count, width = config.tokens * config.rows, config.result_bits
        records = np.frombuffer(raw, np.uint8).reshape(shape.row_groups, -1)
        bits = np.unpackbits(records, axis=1, count=count * width, bitorder="little")
        numbers = bits.reshape(shape.row_groups, config.tokens, config.rows, width)
        if config.scales_activations:  # whole numbers as float32
            packed = np.packbits(numbers, axis=-1, bitorder="little")
            floats = packed.view("<f4")[..., 0].astype(np.int64)
            return np.ascontiguousarray(floats.transpose(1, 0, 2)).reshape(config.tokens, -1)
        if config.scale is not None:  # whole numbers in units of 2^-24, with sign bits to spare
            numbers = numbers[..., HALF_PLACES : HALF_PLACES + SUM_BITS]
        places = np.int64(1) << np.arange(numbers.shape[-1], dtype=np.int64)
        places[-1] = -places[-1]
        sums = (numbers * places).sum(-1)
        results: I64 = sums.transpose(1, 0, 2).reshape(config.tokens, -1)
        return results


def _pack(layout: object, **fields: int) -> bytes:
    """A payload of a struct layout, as bytes, little end first."""
    constant = layout.const(fields)  # type: ignore[attr-defined]
    value = Const.cast(constant)
    number = value.value
    return int(number).to_bytes(-(-len(value) // 8), "little")
