"""ConvNeXt, a convolutional classifier of ImageNet. Liu et al. 2022."""

from typing import Any

import torch
from torch import Tensor

from gan_runner.errors import UserError, did_you_mean
from gan_runner.evaluation.extractor import Extracted, colour
from gan_runner.extractors.downloads import Remote
from gan_runner.extractors.pillow import pillow_resize
from gan_runner.extractors.timm_network import TimmNetwork, library


class ConvNeXt(TimmNetwork):
    """Compute what the last layer of a ConvNeXt reads: the mean over positions after the final norm; no logits.

    model: a ConvNeXt of timm, with the tag of its weights. convnext_large.fb_in22k (ImageNet-22k, 1536 features, 0.9 GB) is the one of
    Stein et al. 2023. weights, download: see TimmNetwork. The file has the names of the authors' files or timm's; its classes may be any.
    No checksum of these files was published: a fetched file is accepted, and `checksum` is what came.

    Images N C H W are resized by Pillow's bicubic resizing, rounded to whole numbers, and cropped, as timm does it for the model
    (convnext_large.fb_in22k: the shorter side to 256, of which 224 x 224 in the centre), and normalised by its mean and deviation.
    UserError for a model that timm does not have, or whose images timm resizes otherwise.
    """

    def __init__(self, model: str = "convnext_large.fb_in22k", weights: str | None = None, download: bool = True):
        super().__init__(weights, download)
        known = library().list_models("convnext*") + library().list_pretrained("convnext*")
        if model not in known:
            hint = did_you_mean(model, known) or f"; it has {', '.join(known)}"
            raise UserError(f"timm has no ConvNeXt {model}{hint}")
        with torch.device("meta"):  # weights are still to come
            net = library().create_model(model, num_classes=0)
        sees = library().data.resolve_model_data_config(net)
        if sees["interpolation"] != "bicubic" or sees["crop_mode"] not in ("center", "squash"):
            how = f"{sees['interpolation']}, {sees['crop_mode']}"
            raise UserError(f"timm resizes the images of {model} in another way ({how}); choose another extractor.model")
        about = net.pretrained_cfg
        full = ".".join(part for part in (about["architecture"], about.get("tag")) if part)
        self.name, self.features = full.replace(".", "_"), net.num_features
        self.side, self.squash = sees["input_size"][1], sees["crop_mode"] == "squash"
        self.before = int(self.side / sees["crop_pct"])
        how = f"{'both sides' if self.squash else 'shorter side'} {self.before} rounded, centre {self.side}"
        self.preprocessing = f"resize pillow-bicubic antialiased {how}, (x/255-{list(sees['mean'])})/{list(sees['std'])}"
        if url := about.get("url"):
            published, file = Remote(url, None, None), url.rpartition("/")[2]
        else:
            published, file = (
                Remote(f"https://huggingface.co/timm/{full}/resolve/main/model.safetensors", None, None),
                f"{full}.safetensors",
            )
        self.build(net, published, file, sees["mean"], sees["std"])

    def own(self, content: Any) -> dict[str, Tensor]:
        state = library().models.convnext.checkpoint_filter_fn(content, self.net)  # from the names of the authors to those of timm
        return super().own({key: value for key, value in state.items() if not key.startswith("head.fc.")})

    def embed(self, images: Tensor) -> Extracted:
        height, width = images.shape[2:]
        if self.squash:
            height = width = self.before
        else:
            shorter = min(height, width)
            height, width = int(self.before * height / shorter), int(self.before * width / shorter)
        x = pillow_resize(images, height, width)
        top, left = round((height - self.side) / 2), round((width - self.side) / 2)
        return Extracted(self.net(self.normalised(colour(x[:, :, top : top + self.side, left : left + self.side]))), None)
