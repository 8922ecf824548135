"""The options of a second stage: a GAN or a VAE of a tokenizer's latents."""

import dataclasses
from typing import Any, ClassVar, Literal

import jaxgen  # whose parts are imported when a model is built: a command line is read before anything slow is
from jaxgen.cli.options import Options, option

OF_DATA = ("dataset", "data_dir", "manual_dir", "image_size", "color", "fit", "train_split", "test_split")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentOptions(Options):
    """Options of families that can learn latents in place of images."""

    of_images: ClassVar[bool] = False  # whether an architecture makes nothing else

    latents: str | None = option(None, "data")
    """Learn the latents of this tokenizer's run or file; what is made is decoded to images. The data are its own."""
    codes: Literal["continuous", "nearest"] | None = option(
        None, "data", needs="--latents", where=lambda o: o.latents is not None
    )
    """Of a tokenizer with codes: decode latents as they are made (continuous), or as those of the nearest codes."""

    def check(self) -> None:
        """Refuse what is for images where latents are learnt."""
        super().check()
        if self.latents is None:
            return
        architecture = getattr(self, "architecture", "")
        if self.of_images:
            raise ValueError(f"--architecture {architecture} is for images, not for --latents: use grid or mlp")
        for name, usual in (("flip", False), ("augmentation", "none"), ("binarization", "none")):
            if getattr(self, name, usual) != usual:
                raise ValueError(f"--{name} is for images, not for --latents: leave it out")
        if getattr(self, "log_likelihood_samples", None) is not None:
            raise ValueError("--log-likelihood-samples is of images, which have no likelihood with --latents")

    def model(self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False) -> Any:
        if self.latents is None:
            return super().model(image_shape, num_classes, unbounded)
        first = self.first_stage()
        assert first is not None
        num_codes = first.spec.num_codes
        if num_codes and self.codes is None:
            raise ValueError(
                f"{self.latents} has {num_codes:,} codes, and what is made of its latents is continuous: pass --codes "
                "continuous to decode it as it is, or --codes nearest"
            )
        if not num_codes and self.codes is not None:
            raise ValueError(f"--codes {self.codes}: {self.latents} has none: leave it out")
        spec = self.spec(first.spec.latent_shape, num_classes, unbounded=True)
        return jaxgen.latent_model(spec, first.spec, first.sha256, self.codes == "nearest")

    def first_stage(self) -> Any:
        """The tokenizer whose latents are learnt; None of images."""
        if self.latents is None:
            return None
        from jaxgen.cli.latent_data import first_stage  # slow to import

        return first_stage(self.latents)

    def held(self, image_shape: tuple[int, ...]) -> dict[str, Any]:
        first = self.first_stage()
        return super().held(image_shape) if first is None else {"tokenizer": first.state}
