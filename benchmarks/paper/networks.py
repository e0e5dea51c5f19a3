"""The supernets of MetaPruning that are not the networks of that name in the registry.

`hwprune` reads them as `networks.py:NAME`.
"""

from __future__ import annotations

from hwprune.models.mobilenet_v2 import MobileNetV2

SUPERNET = (44, 22, 33, 44, 88, 132, 224, 448, 1280)  # the published stage_out_channel, and the last layer
BASE = (32, 16, 24, 32, 64, 96, 160, 320)


def mobilenet_v2_supernet(num_classes: int = 1000) -> MobileNetV2:
    """MobileNetV2 with 1.4 times its channels, as the authors pruned it.

    Channels are not rounded to multiples of 8, the first block expands its input by a 1x1 convolution too,
    and the last convolution has 1280 channels.
    """
    return MobileNetV2(num_classes, SUPERNET, dropout=0.0, expand_first=True)


def mobilenet_v2_uniform(num_classes: int = 1000, width: float = 1.0) -> MobileNetV2:
    """MobileNetV2 with `width` times its channels by the same rules: the authors' uniform baselines."""
    channels = [int(count * width) for count in BASE]
    return MobileNetV2(num_classes, [*channels, int(1280 * max(1.0, width))], dropout=0.0, expand_first=True)
