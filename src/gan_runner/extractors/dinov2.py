"""DINOv2, a vision transformer trained without labels. Oquab et al. 2024."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_runner.evaluation.extractor import Extracted, colour
from gan_runner.extractors.downloads import Remote
from gan_runner.extractors.pillow import pillow_resize
from gan_runner.extractors.timm_network import IMAGENET, TimmNetwork, library

SIDE, PATCH = 224, 14
FILES = {  # size and SHA-256 of the published files, as several projects that pin them state them
    "vits14": ("vit_small_patch14_dinov2", 88_283_115, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "vitb14": ("vit_base_patch14_dinov2", 346_378_731, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "vitl14": ("vit_large_patch14_dinov2", 1_217_586_395, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
}


class Dinov2(TimmNetwork):
    """Compute the class token of DINOv2 after the final norm, as FD-DINOv2 uses it (Stein et al. 2023): no logits.

    model: vitl14, 1024 features, the network of published figures (1.2 GB); vitb14, 768 features (346 MB), cheaper to follow in training;
    vits14, 384 features (88 MB). weights, download: see TimmNetwork. The file has the names of the authors' files or timm's.

    Images N C H W of any size are resized to 224 x 224 by Pillow's bicubic resizing, which antialiases where it reduces and rounds to whole
    numbers, and normalised by ImageNet's mean and deviation: what the authors' program for FD-DINOv2 (layer6ai-labs/dgm-eval) does without
    --clean_resize. Position embeddings of another size are interpolated as the authors of DINOv2 do it, which differs from timm: bicubic,
    not antialiased, with a scale of (16 + 0.1) / 37.

    Published figures take 50,000 samples. Memory: 1.2 GB of weights (vitl14), and about 0.5 GB for 64 images at once.
    """

    preprocessing = f"resize pillow-bicubic antialiased {SIDE} rounded, (x/255-{list(IMAGENET[0])})/{list(IMAGENET[1])}"

    def __init__(self, model: Literal["vitl14", "vitb14", "vits14"] = "vitl14", weights: str | None = None, download: bool = True):
        super().__init__(weights, download)
        name, size, sha256 = FILES[model]
        self.name = f"dinov2_{model}"
        file = f"{self.name}_pretrain.pth"
        with torch.device("meta"):  # weights are still to come
            net = library().create_model(name, img_size=SIDE, num_classes=0)
        self.features = net.num_features
        published = Remote(f"https://dl.fbaipublicfiles.com/dinov2/{self.name}/{file}", size, sha256)
        self.build(net, published, file, *IMAGENET)

    def own(self, content: Any) -> dict[str, Tensor]:
        state = {key: value for key, value in content.items() if key != "mask_token"}  # which only its training used
        return super().own(state | {"pos_embed": positions(state["pos_embed"], SIDE // PATCH)})

    def embed(self, images: Tensor) -> Extracted:
        return Extracted(self.net(self.normalised(colour(pillow_resize(images, SIDE, SIDE)))), None)


def positions(embedding: Tensor, side: int) -> Tensor:
    """Interpolate position embeddings 1 (1 + M M) F to 1 (1 + side side) F; the first, of the class token, is kept."""
    token, rest = embedding[:, :1].float(), embedding[:, 1:].float()
    before = math.isqrt(rest.shape[1])
    if before == side:
        return embedding
    square = rest.unflatten(1, (before, before)).permute(0, 3, 1, 2)
    scale = (side + 0.1) / before  # sic: the published features have this scale, not side / before
    square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([token, square.flatten(2).mT], 1)
