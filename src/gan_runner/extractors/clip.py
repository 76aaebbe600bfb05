"""CLIP's image network. Radford et al. 2021."""

import re
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_runner.evaluation.extractor import Extracted, colour
from gan_runner.extractors.downloads import Remote
from gan_runner.extractors.pillow import pillow_resize
from gan_runner.extractors.timm_network import TimmNetwork, library

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILES = {  # network of timm, features, side, published repository, its revision, size and SHA-256 of its pytorch_model.bin
    "vitl14_336": (
        "vit_large_patch14_clip_quickgelu_336", 768, 336, "openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
        1_711_974_081, "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
    ),
    "vitb32": (
        "vit_base_patch32_clip_quickgelu_224", 512, 224, "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        None, "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    ),
}  # fmt: skip
RENAMED = (  # from names of the published files to those of timm
    (r"^visual_projection\.", "head."),
    (r"^vision_model\.embeddings\.class_embedding$", "cls_token"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^vision_model\.pre_layrnorm\.", "norm_pre."),
    (r"^vision_model\.post_layernorm\.", "norm."),
    (r"^vision_model\.encoder\.layers\.", "blocks."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
)


class Clip(TimmNetwork):
    """Compute CLIP's projected embedding of images, of unit length, as CMMD uses it (Jayasumana et al. 2024): no logits.

    model: vitl14_336, 768 features, the network of CMMD (the file has CLIP's text network as well: 1.7 GB); vitb32, 512 features, cheaper.
    weights, download: see TimmNetwork. The file has the names of the published one (transformers' CLIPModel) or timm's.

    resize: how images N C H W of any size become 336 x 336 (vitb32: 224 x 224). pillow is what the programs of published figures,
    google-research/cmmd and sayakpaul/cmmd-pytorch, do to files: the square in the centre, by Pillow's antialiased bicubic resizing,
    rounded to whole numbers. bicubic is the embedding model of the second one, for which nothing is left to resize after that: the whole
    image, a = -0.75, without antialiasing and without rounding; its figures are named .../clip_vitl14_336_bicubic. Images of 336 x 336 are
    unchanged by both.

    Pixels are normalised by CLIP's mean and deviation. Embeddings are divided by their length here, because both programs do it in their
    embedding model.

    Memory: 1.2 GB of weights (vitl14_336), and about 0.3 GB for 16 images at once.
    """

    chunk = 16

    def __init__(
        self,
        model: Literal["vitl14_336", "vitb32"] = "vitl14_336",
        resize: Literal["pillow", "bicubic"] = "pillow",
        weights: str | None = None,
        download: bool = True,
    ):
        super().__init__(weights, download)
        name, self.features, self.side, repository, revision, size, sha256 = FILES[model]
        self.pillow = resize == "pillow"
        self.name = f"clip_{model}" + ("" if self.pillow else "_bicubic")
        how = (
            f"centre square, pillow-bicubic antialiased {self.side} rounded" if self.pillow else f"bicubic {self.side} without antialiasing"
        )
        self.preprocessing = f"resize {how}, (x/255-{list(MEAN)})/{list(DEVIATION)}"
        with torch.device("meta"):  # weights are still to come
            net = library().create_model(name, num_classes=self.features)
        published = Remote(f"https://huggingface.co/{repository}/resolve/{revision}/pytorch_model.bin", size, sha256)
        self.build(net, published, f"{repository.rpartition('/')[2]}.bin", MEAN, DEVIATION)

    def own(self, content: Any) -> dict[str, Tensor]:
        return super().own(to_timm(content) if "visual_projection.weight" in content else content)

    def embed(self, images: Tensor) -> Extracted:
        if self.pillow:
            height, width = images.shape[2:]
            square = min(height, width)
            top, left = (height - square) // 2, (width - square) // 2
            x = pillow_resize(images[:, :, top : top + square, left : left + square], self.side, self.side)
        else:
            x = F.interpolate(images.float(), (self.side, self.side), mode="bicubic", align_corners=False)
        return Extracted(F.normalize(self.net(self.normalised(colour(x))), dim=1), None)


def to_timm(content: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the image network's weights from the published names to timm's, and join queries, keys and values; leave out all others."""
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if key.startswith(("vision_model.", "visual_projection.")) and not key.endswith("position_ids"):
            for pattern, name in RENAMED:
                key = re.sub(pattern, name, key)
            state[key] = value
    for key in [key for key in state if ".self_attn.q_proj." in key]:
        parts = [state.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        state[key.replace(".self_attn.q_proj.", ".attn.qkv.")] = torch.cat(parts)
    state["cls_token"], state["pos_embed"] = state["cls_token"][None, None], state["pos_embed"][None]
    state["head.bias"] = torch.zeros(len(state["head.weight"]))  # the projection has none
    return state
