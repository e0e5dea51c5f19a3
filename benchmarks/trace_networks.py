"""The networks of timm and torchvision that `trace_zoo.py` traces, family by family.

A family is a module of timm or of torchvision; where both have a module for the same networks, it is one
family. Each network has a small image size that it takes as it is, with maps that its pools divide evenly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from hwprune.models.registry import build

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """One network of the zoo.

    Attributes:
        name: `timm:NAME` or `torchvision:NAME`.
        family: The module of timm or torchvision that it comes from.
        size: Side of its images in pixels.
        attention: Whether it has attention over tokens or channels, as transformers have. Neither
            squeeze-and-excitation nor a softmax over a few branches counts.
        factory: Builds it for images of a given side, where the registry cannot.
    """

    name: str
    family: str
    size: int
    attention: bool = False
    factory: Callable[[int], nn.Module] | None = None

    def build(self, size: int | None = None) -> nn.Module:
        """The network with random weights, for images of `size` pixels, its own size when None."""
        if self.factory is not None:
            return self.factory(size or self.size)
        return build(self.name, num_classes=CLASSES)


# (family, size, names): timm's networks without attention
_TIMM = (
    ("byobnet", 64, "gernet_s repvgg_a0 mobileone_s0 mobileone_s1"),
    ("byobnet", 64, "resnext26ts seresnext26ts gcresnext26ts"),
    ("byobnet", 64, "resnet51q regnetz_b16"),
    ("convmixer", 64, "convmixer_768_32"),
    ("convnext", 64, "convnext_atto convnext_femto_ols convnext_atto_rms convnextv2_atto"),
    ("cspnet", 64, "cspresnet50 cspdarknet53 darknet17 sedarknet21 cs3darknet_s"),
    ("cspnet", 64, "cs3darknet_focus_s"),
    ("cspnext", 64, "cspnext_tiny"),
    ("densenet", 64, "densenet121 densenetblur121d"),
    ("dla", 64, "dla34 dla46_c dla60_res2net"),
    ("dpn", 64, "dpn48b dpn68"),
    ("efficientnet", 64, "efficientnet_b0 efficientnet_b0_gn efficientnet_blur_b0"),
    ("efficientnet", 64, "efficientnet_lite0 efficientnetv2_rw_t tf_efficientnet_b0 tf_efficientnet_lite0"),
    ("efficientnet", 64, "tf_efficientnetv2_b0 efficientnet_cc_b0_4e efficientnet_b1_pruned mixnet_s"),
    ("efficientnet", 64, "tf_mixnet_s mnasnet_small semnasnet_050 fbnetc_100 tinynet_e"),
    ("efficientnet", 64, "mobilenetv1_100 mobilenetv2_050 mobilenet_edgetpu_v2_xs"),
    ("fasternet", 64, "fasternet_t0"),
    ("fastvit", 64, "fastvit_t8"),
    ("focalnet", 64, "focalnet_tiny_srf"),
    ("ghostnet", 64, "ghostnet_050 ghostnet_100 ghostnetv2_100"),
    ("hardcorenas", 64, "hardcorenas_a"),
    ("hgnet", 64, "hgnet_tiny hgnetv2_b0"),
    ("hrnet", 64, "hrnet_w18_small hrnet_w18_small_v2"),
    ("inception_next", 64, "inception_next_atto"),
    ("inception_resnet_v2", 96, "inception_resnet_v2"),
    ("inception_v3", 96, "inception_v3"),
    ("inception_v4", 96, "inception_v4"),
    ("lcnetv2", 64, "lcnetv2_small"),
    ("mambaout", 64, "mambaout_femto"),
    ("metaformer", 64, "poolformer_s12 poolformerv2_s12 convformer_s18"),
    ("mobilenetv3", 64, "mobilenetv3_small_050 mobilenetv3_large_100"),
    ("mobilenetv3", 64, "tf_mobilenetv3_small_100 tf_mobilenetv3_small_minimal_100 lcnet_050 fbnetv3_b"),
    ("mobilenetv3", 64, "mobilenetv4_conv_small_050 mobilenetv4_conv_blur_medium"),
    ("nasnet", 96, "nasnetalarge"),
    ("nfnet", 64, "nfnet_l0 nf_resnet26 nf_seresnet26 nf_regnet_b0"),
    ("pnasnet", 96, "pnasnet5large"),
    ("rdnet", 64, "rdnet_tiny"),
    ("regnet", 64, "regnetx_002 regnety_002 regnetz_005 regnetv_040"),
    ("repghost", 64, "repghostnet_050"),
    ("repvit", 64, "repvit_m0_9"),
    ("res2net", 64, "res2net50_26w_4s res2net50_48w_2s res2next50"),
    ("resnest", 64, "resnest14d resnest26d"),
    ("resnet", 64, "resnet10t resnet18d resnet26t resnet50_gn resnetblur50 resnetaa34d"),
    ("resnet", 64, "resnetrs50 resnext50_32x4d seresnet18 ecaresnet26t"),
    ("resnetv2", 64, "resnetv2_18 resnetv2_50x1_bit resnetv2_50d_gn resnetv2_50d_evos"),
    ("resnetv2", 64, "resnetv2_50d_frn"),
    ("rexnet", 64, "rexnet_100 rexnetr_100"),
    ("selecsls", 64, "selecsls42 selecsls42b"),
    ("senet", 64, "legacy_seresnext26_32x4d"),
    ("sknet", 64, "skresnet18 skresnext50_32x4d"),
    ("starnet", 64, "starnet_s050"),
    ("tresnet", 64, "tresnet_m"),
    ("vgg", 224, "vgg11"),
    ("vovnet", 64, "ese_vovnet19b_dw eca_vovnet39b"),
    ("xception", 96, "legacy_xception"),
    ("xception_aligned", 64, "xception41"),
)
# those with attention that take any size
_TIMM_ATTENTION = (
    ("edgenext", 64, "edgenext_xx_small edgenext_small_rw"),
    ("efficientformer", 224, "efficientformer_l1"),  # attention over 7 x 7, whatever size is asked for
    ("efficientvit_mit", 64, "efficientvit_b0 efficientvit_l1"),
    ("fastvit", 64, "fastvit_sa12"),
    ("iformer", 64, "iformer_t"),
    ("lowformer", 64, "lowformer_b0"),
    ("metaformer", 64, "caformer_s18"),
    ("mobilenetv3", 64, "mobilenetv4_hybrid_medium_075"),
    ("mobilevit", 64, "mobilevit_xxs mobilevitv2_050"),
    ("nextvit", 64, "nextvit_small"),
    ("pvt_v2", 64, "pvt_v2_b0"),
    ("shvit", 128, "shvit_s1"),
    ("swiftformer", 64, "swiftformer_xs"),
)
# those with attention that are built for one size
_TIMM_SIZED = (
    ("byoanet", 64, "botnet26t_256"),
    ("coat", 64, "coat_lite_tiny"),
    ("efficientformer_v2", 64, "efficientformerv2_s0"),
    ("efficientvit_msra", 128, "efficientvit_m0"),
    ("levit", 64, "levit_128s levit_conv_128s"),
    ("maxxvit", 64, "coatnet_nano_rw_224 coatnext_nano_rw_224"),
    ("pit", 64, "pit_ti_224"),
    ("swin_transformer", 64, "swin_tiny_patch4_window7_224"),
    ("visformer", 64, "visformer_tiny"),
    ("vision_transformer", 64, "vit_tiny_patch16_224"),
    ("vision_transformer_hybrid", 64, "vit_tiny_r_s16_p8_224"),
    ("vitamin", 64, "vitamin_small_224"),
)
_TORCHVISION = (
    ("alexnet", 224, "alexnet"),
    ("convnext", 64, "convnext_tiny"),
    ("densenet", 64, "densenet121"),
    ("efficientnet", 64, "efficientnet_b0 efficientnet_v2_s"),
    ("googlenet", 64, "googlenet"),
    ("inception_v3", 96, "inception_v3"),
    ("mnasnet", 64, "mnasnet0_5 mnasnet1_0"),
    ("mobilenetv2", 64, "mobilenet_v2"),
    ("mobilenetv3", 64, "mobilenet_v3_small mobilenet_v3_large"),
    ("regnet", 64, "regnet_x_400mf regnet_y_400mf"),
    ("resnet", 64, "resnet18 resnet50 resnext50_32x4d"),
    ("shufflenetv2", 64, "shufflenet_v2_x0_5 shufflenet_v2_x1_0"),
    ("squeezenet", 64, "squeezenet1_0 squeezenet1_1"),
    ("vgg", 224, "vgg11_bn vgg16"),
)
_SEGMENTATION = (
    ("fcn", 64, "fcn_resnet50"),
    ("deeplabv3", 64, "deeplabv3_resnet50 deeplabv3_mobilenet_v3_large"),
    ("lraspp", 64, "lraspp_mobilenet_v3_large"),
)
_DETECTION = (
    ("faster_rcnn", 64, "fasterrcnn_mobilenet_v3_large_fpn"),
    ("faster_rcnn", 64, "fasterrcnn_resnet50_fpn_v2"),
    ("fcos", 64, "fcos_resnet50_fpn"),
    ("mask_rcnn", 64, "maskrcnn_resnet50_fpn_v2"),
    ("retinanet", 64, "retinanet_resnet50_fpn retinanet_resnet50_fpn_v2"),
    ("ssd", 300, "ssd300_vgg16"),
    ("ssdlite", 64, "ssdlite320_mobilenet_v3_large"),
)
_FEATURES = (
    ("efficientnet", 64, "mobilenetv2_050"),
    ("resnet", 64, "resnet18"),
)


class Detector(nn.Module):
    """Backbone and head of a torchvision detector, without what depends on the boxes found.

    Its outputs are those of the head. Of two-stage detectors they are those of the region proposal network
    and, where there is one, of the mask head, given the finest map whole in place of the boxes found in it.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head
        heads = getattr(detector, "roi_heads", None)
        self.mask = None
        if heads is not None and heads.has_mask():
            self.mask = nn.Sequential(heads.mask_head, heads.mask_predictor)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Scores and boxes of all anchors, and masks."""
        maps = list(self.backbone(images).values())
        found = self.head(maps)
        parts = [*found.values()] if isinstance(found, dict) else [*found]
        if self.mask is not None:
            parts.append(self.mask(maps[0]))
        return tuple(one for part in parts for one in (part if isinstance(part, list) else [part]))


def _timm_sized(name: str, size: int) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=size)


def _timm_features(name: str, size: int) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, features_only=True)


def _dense(name: str, size: int) -> nn.Module:
    import torchvision

    options = {} if name.startswith("lraspp") else {"aux_loss": False}
    return torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=CLASSES, **options
    )


def _detector(name: str, size: int) -> nn.Module:
    import torchvision

    return Detector(
        torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
    )


_Rows = tuple[tuple[str, int, str], ...]
_Maker = Callable[[str, int], nn.Module]


def _networks(
    source: str, rows: _Rows, make: _Maker | None = None, *, attention: bool = False, suffix: str = ""
) -> list[Network]:
    return [
        Network(
            f"{source}:{name}{suffix}",
            family,
            size,
            attention,
            None if make is None else functools.partial(make, name),
        )
        for family, size, names in rows
        for name in names.split()
    ]


NETWORKS = (
    *_networks("timm", _TIMM),
    *_networks("timm", _TIMM_ATTENTION, attention=True),
    *_networks("timm", _TIMM_SIZED, _timm_sized, attention=True),
    *_networks("timm", _FEATURES, _timm_features, suffix=".features"),
    *_networks("torchvision", _TORCHVISION),
    *_networks("torchvision", _SEGMENTATION, _dense),
    *_networks("torchvision", _DETECTION, _detector),
)
