"""A task of a user's own: where a bright square is, found by a small network with two outputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def images(count: int, seed: int) -> TensorDataset:
    """Grey noise with a bright square, (1, 16, 16), and its place, of 0 to 1."""
    rng = np.random.default_rng(seed)
    pixels, places = rng.normal(0, 0.3, (count, 1, 16, 16)), rng.integers(2, 14, (count, 2))
    for image, (down, right) in zip(pixels, places, strict=True):
        image[0, down - 2 : down + 2, right - 2 : right + 2] += 2
    return TensorDataset(*(torch.tensor(part, dtype=torch.float32) for part in (pixels, places / 16)))


class Net(nn.Module):
    """Two outputs, one for each direction."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, 1 if inputs == 1 else 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.down, self.right = nn.Linear(1024, 1), nn.Linear(1024, 1)

    def forward(self, x):
        found = self.body(x)
        return {"down": self.down(found), "right": self.right(found)}


class Task:
    """The share of images whose square is found to within a sixteenth of the side."""

    name = "found"

    def loss(self, outputs, batch):
        return self._error(outputs, batch).mean()

    def metric(self, outputs, batch):
        return (self._error(outputs, batch).amax(1) < 1 / 16).float()

    def _error(self, outputs, batch):
        return (torch.cat([outputs["down"], outputs["right"]], 1) - batch["place"]).abs()

    def train_loader(self):
        return self._loader(512, 0, shuffle=True, drop_last=True)

    def val_loader(self):
        return self._loader(128, 1)

    def test_loader(self):
        return self._loader(96, 2)

    def _loader(self, count, seed, **options):
        def collate(rows):
            return {"image": torch.stack([x for x, _ in rows]), "place": torch.stack([y for _, y in rows])}

        return DataLoader(images(count, seed), 32, collate_fn=collate, **options)


class OverASet(Task):
    """The same figure of all images at once."""

    def __init__(self) -> None:
        self.metric = self

    def reset(self):
        self.seen = []

    def update(self, outputs, batch):
        self.seen.append(Task.metric(self, outputs, batch))

    def compute(self):
        return torch.cat(self.seen).mean()


class Lacking:
    """No task."""

    def loss(self, outputs, batch):
        return outputs.mean()
