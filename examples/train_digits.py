"""Train a small ternary network on handwritten digits and write it as `digits_ternary.npz`.

    pip install -e ".[torch]"
    python examples/train_digits.py --output digits

Weights are ternary (absmean) and activations int8 (absmax) in every forward pass; the gradient
passes the rounding unchanged. The file holds what
`tritloom.host.checkpoints.npz.load_npz` reads, with the test images. Ten seconds on a CPU,
about 99 % right.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from tritloom.host import load_npz
from tritloom.host.models.bitnet import golden_linear
from tritloom.rtl.spec.numerics import absmean_ternarize

SIZES = [64, 128, 128, 16]
CLASSES = 10


class TernaryLinear(nn.Linear):
    """A linear layer that computes as BitNet b1.58 does, trained straight through the rounding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.weight.abs().mean().clamp(min=1e-5)
        weight = (self.weight / mean).round().clamp(-1, 1) * mean
        s = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        codes = (x * s).round().clamp(-128, 127) / s
        return functional.linear(
            x + (codes - x).detach(), self.weight + (weight - self.weight).detach()
        )


def train(x: np.ndarray, y: np.ndarray, steps: int, seed: int) -> nn.Sequential:
    """The trained network; `x` is float32 `[images, 64]`, `y` int64 `[images]`."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for ins, outs in itertools.pairwise(SIZES):
        layers += [TernaryLinear(ins, outs, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for step in range(steps):
        batch = torch.randint(len(images), (128,))
        noisy = (images[batch] + 0.1 * torch.randn(128, SIZES[0])).clamp(0, 1)
        loss = functional.cross_entropy(
            model(noisy)[:, :CLASSES], labels[batch], label_smoothing=0.05
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps - 1:
            print(f"step {step:5}: loss {loss.item():.3f}", flush=True)
    return model


def accuracy(file: Path) -> float:
    """The part of the file's test images that its layers, in exact integers, get right."""
    layers, data = load_npz(file)
    x = data["x_test"]
    for name, layer in layers.items():
        x = golden_linear(name, layer, np.maximum(x, 0))
    return float((x[:, :CLASSES].argmax(axis=1) == data["y_test"]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("digits"), help="directory to write")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    arguments = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (x / 16).astype(np.float32), y, test_size=0.25, random_state=0, stratify=y
    )
    model = train(x_train, y_train, arguments.steps, arguments.seed)
    arrays: dict[str, np.ndarray] = {}
    for number, layer in enumerate(model[::2], start=1):
        trits, scale = absmean_ternarize(layer.weight.detach().numpy())
        arrays |= {f"l{number}.trits": trits, f"l{number}.scale": np.asarray(scale)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "digits_ternary.npz"
    np.savez_compressed(file, **arrays, x_test=x_test, y_test=y_test)
    print(f"{file}: {accuracy(file):.2%} of {len(y_test)} test images right")


if __name__ == "__main__":
    main()
