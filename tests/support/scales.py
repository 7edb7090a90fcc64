"""A device with scales, and random layers for it."""

from tritloom.host import GroupLayer
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.conformance.operands import random_scales

SCALED = AcceleratorConfig(
    lanes=10,
    rows=3,
    tokens=2,
    fill=5,
    memory=BlockRam(words=3000),
    max_in_features=640,
    max_out_features=24,
    max_layers=64,
    scale=ScaleConfig(group=256),
)


def random_layer(rng, shape, group, most=1):
    """A layer with weights up to `most`, and a scale for each group of inputs."""
    weights = rng.integers(-1, most + 1, shape).astype("int8")
    scales = random_scales(rng, (shape[0], shape[1] // (group or shape[1])))
    return GroupLayer.from_weights(weights, group, scales.view("float16"))
