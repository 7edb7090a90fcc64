"""llama.cpp, the back end, and models: each is made once for all tests."""

import numpy as np
import pytest

from tests.llama.build import build_llama
from tests.llama.running import compiled
from tests.support.tinylm_gguf import write_tinylm
from tritloom.gen.flow.llama import build_backend


@pytest.fixture(scope="session")
def llama():
    return build_llama()


@pytest.fixture(scope="session")
def backend(llama, tmp_path_factory):
    library = tmp_path_factory.mktemp("backend") / "libggml-tritloom.so"
    assert build_backend(llama.sources, library) == "0.25.3"
    return library


@pytest.fixture(scope="session")
def products(llama, tmp_path_factory):
    return compiled(llama, "products", tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """tinylm in each type, and with a scale of its own for each group."""
    folder = tmp_path_factory.mktemp("models")

    def varied(trits, scale):
        random = np.random.default_rng(7)
        return scale * random.uniform(0.5, 1.5, (len(trits), trits.shape[1] // 64))

    files = {
        name: write_tinylm(folder / f"{name}.gguf", name) for name in ("TQ1_0", "TQ2_0", "Q2_0")
    }
    files["groups"] = write_tinylm(folder / "groups.gguf", "Q2_0", varied)
    return files
