"""What callers give to a device: the right work, or one clear error."""

import numpy as np
import pytest

from tests.support.layers import SMALL, codes_of, layer_of
from tritloom.host import (
    DeviceError,
    InputError,
    connect,
)
from tritloom.host.inputs import checked_codes
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import TINY


@pytest.fixture
def random():
    return np.random.default_rng(7)


class TestBadInput:
    @pytest.mark.parametrize(
        ("codes", "message"),
        [
            (np.zeros((2, 10)), "codes must be int8, not float64; quantize the activations first"),
            (np.zeros((2, 10), np.uint8), "codes must be int8, not uint8; quantize the .*"),
            (
                np.zeros(10, np.int8),
                r"codes must have shape \[tokens, in_features\], not \(10,\).*",
            ),
            (np.zeros((0, 10), np.int8), r"codes must not be empty, their shape is \(0, 10\)"),
            (np.zeros((2, 0), np.int8), "codes must have 10 features, not 0"),
            (np.zeros((2, 11), np.int8), "codes must have 10 features, not 11"),
        ],
    )
    def test_codes(self, codes, message, random):
        with connect("golden", config=SMALL) as device:
            handle = device.load(layer_of(random, 4, 10))
            with pytest.raises(InputError, match=f"^{message}$"):
                device.submit(handle, codes)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_linear_names_the_place(self, value, random):
        with connect("golden", config=SMALL) as device:
            handle = device.load(layer_of(random, 4, 10))
            x = np.zeros((3, 10), np.float32)
            x[1, 7] = value
            with pytest.raises(InputError, match="at token 1, position 7"):
                device.linear(handle, x)
            with pytest.raises(InputError, match=r"^x must have 10 features, not 9$"):
                device.linear(handle, np.zeros((3, 9), np.float32))

    def test_handles(self, random):
        with connect("golden", config=SMALL) as device, connect("golden", config=TINY) as other:
            handle = device.load(layer_of(random, 4, 10))
            codes = codes_of(random, 1, 10)
            with pytest.raises(InputError, match=r"^the layer is on golden, not here; load it"):
                other.submit(handle, codes)
            device.unload(handle)
            for call in (
                lambda: device.unload(handle),
                lambda: device.matmul(handle, codes),
                lambda: device.linear(handle, codes.astype(np.float32)),
            ):
                with pytest.raises(InputError, match=r"^the layer was unloaded; load it again$"):
                    call()

    def test_after_close(self, random):
        with connect("golden", config=SMALL) as device:
            layer = layer_of(random, 4, 10)
            handle = device.load(layer)
            codes = codes_of(random, 1, 10)
            done, late = (device.submit(handle, codes) for _ in range(2))
            done.result()
        device.close()
        assert np.array_equal(done.result(), numerics.matmul(layer.trits, codes))
        for call in (
            late.result,
            device.counters,
            lambda: device.load(layer),
            lambda: device.unload(handle),
            lambda: device.submit(handle, codes),
            lambda: device.linear(handle, np.zeros((1, 10), np.float32)),
        ):
            with pytest.raises(DeviceError, match=r"^golden is closed; connect again$"):
                call()

    def test_more_inputs_than_int32_can_sum(self, random):
        with connect("golden", config=SMALL) as device:
            layer = layer_of(random, 1, numerics.MAX_FEATURES + 1)
            with pytest.raises(InputError, match=r"^in_features must be at most 16777215 for sums"):
                device.load(layer)


class FakeTensor:
    """What the driver uses of a torch tensor."""

    def __init__(self, values, dtype="torch.bfloat16", grad=True):
        self.values, self.dtype, self.grad = values, dtype, grad

    def detach(self):
        return FakeTensor(self.values, self.dtype, grad=False)

    def cpu(self):
        return self

    def float(self):
        return FakeTensor(self.values, "torch.float32", self.grad)

    def __array__(self, dtype=None, copy=None):
        if self.grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


class TestInputKinds:
    @pytest.fixture
    def device(self):
        with connect("golden", config=SMALL) as device:
            yield device

    @pytest.fixture
    def handle(self, device, random):
        return device.load(layer_of(random, 4, 10))

    def test_tensors_and_lists_are_right(self, device, handle, random):
        x = random.normal(size=(2, 10)).astype(np.float32)
        codes = codes_of(random, 2, 10)
        y = device.linear(handle, x)
        for given in (x.tolist(), FakeTensor(x), FakeTensor(x, "torch.float32"), x[::-1][::-1]):
            assert np.array_equal(device.linear(handle, given), y)
        expected = device.matmul(handle, codes)
        given = FakeTensor(codes, "torch.int8", grad=False)
        assert np.array_equal(device.matmul(handle, given), expected)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            ([[1.0, 2.0], [1.0]], "x must be an array of numbers: setting an array element"),
            (None, "x must be an array of numbers, not NoneType"),
            ("text", "x must be float32, not <U4"),
            ([[None] * 10], "x must be an array of numbers, not list"),
            ({"a": 1}, "x must be an array of numbers, not dict"),
            (
                np.ma.masked_less(np.ones((1, 10)), 2),
                r"x must not be a masked array, its mask would be lost; fill it with \.filled\(0\)",
            ),
        ],
    )
    def test_linear(self, device, handle, x, message):
        with pytest.raises(InputError, match=f"^{message}"):
            device.linear(handle, x)

    def test_codes(self, device, handle):
        masked = np.ma.masked_less(np.ones((1, 10), np.int8), 2)
        for codes, message in (
            (masked, "codes must not be a masked array"),
            ([[1], [1, 2]], "codes must be an array of numbers: setting"),
            (None, "codes must be an array of numbers, not NoneType"),
            ([[1] * 10], "codes must be int8, not int64"),
        ):
            with pytest.raises(InputError, match=f"^{message}"):
                device.matmul(handle, codes)

    def test_handles_and_layers(self, device, handle):
        codes = np.zeros((1, 10), np.int8)
        for wrong in (None, handle.layer, 3):
            for call in (
                lambda wrong=wrong: device.matmul(wrong, codes),
                lambda wrong=wrong: device.linear(wrong, codes.astype(np.float32)),
                lambda wrong=wrong: device.unload(wrong),
            ):
                with pytest.raises(InputError, match=r"^handle must be what load returned, not "):
                    call()
        with pytest.raises(InputError) as caught:
            device.load(np.zeros((2, 3), np.int8))
        assert str(caught.value) == (
            "load takes a TernaryLayer, not ndarray; make one with "
            "TernaryLayer.from_trits(trits, scale)"
        )

    def test_config(self):
        with pytest.raises(InputError, match=r"^config must be an AcceleratorConfig, not dict$"):
            connect("golden", config={"lanes": 10})


def test_an_array_of_objects():
    """It is refused as no array of numbers, not for its dtype."""
    codes = np.array([[1, None]], dtype=object)
    with pytest.raises(InputError) as caught:
        checked_codes(SMALL, codes, 2)
    assert str(caught.value) == "codes must be an array of numbers, not ndarray"
