"""The options of a second stage: a GAN or a VAE of a tokenizer's latents."""

import dataclasses
from typing import Any, ClassVar, Literal

import jaxgen  # whose parts are imported when a model is built: a command line is read before anything slow is
from jaxgen.cli.options import Options, flag, option

OF_DATA = ("dataset", "data_dir", "manual_dir", "image_size", "color", "fit", "train_split", "test_split")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentOptions(Options):
    """Options of families that can learn latents in place of images."""

    learns: ClassVar[str] = ""  # "images" or "latents" of an architecture that is for those alone

    latents: str | None = option(None, "data", needs="--architecture grid or mlp", where=lambda o: o.learns != "images")
    """Learn this tokenizer's latents: a run or a file."""
    codes: Literal["continuous", "nearest"] | None = option(
        None, needs="--latents", where=lambda o: o.latents is not None
    )
    """Decode latents as they are made, or the nearest codes'."""

    def check(self) -> None:
        """Refuse what is for images where latents are learnt."""
        super().check()
        if self.latents is None:
            return
        if self.learns == "images":
            raise ValueError("--latents is for --architecture grid or mlp: what this begins from makes images")
        usual = {"flip": False, "augmentation": "none", "binarization": "none", "log_likelihood_samples": None}
        for name, value in usual.items():
            if getattr(self, name, value) != value:
                raise ValueError(f"{flag(name)} is for images, not for --latents: leave it out")

    def model(self, image_shape: tuple[int, ...], num_classes: int | None = None, unbounded: bool = False) -> Any:
        if self.latents is None:
            if self.learns == "latents":
                raise ValueError("--architecture grid is for latents: give a tokenizer's run with --latents")
            return super().model(image_shape, num_classes, unbounded)
        first = self.first_stage()
        spec = self.spec(first.spec.latent_shape, num_classes, unbounded=True)
        return jaxgen.latent_model(spec, first.spec, first.sha256, self.codes == "nearest")

    def first_stage(self) -> Any:
        """The tokenizer whose latents are learnt; None of images."""
        if self.latents is None:
            return None
        from jaxgen.cli.latent_data import first_stage  # slow to import

        first = first_stage(self.latents)
        num_codes = first.spec.num_codes
        if num_codes and self.codes is None:
            raise ValueError(
                f"{self.latents} has {num_codes:,} codes, and what is made of its latents is continuous: pass --codes "
                "continuous to decode it as it is, or --codes nearest"
            )
        if not num_codes and self.codes is not None:
            raise ValueError(f"--codes {self.codes}: {self.latents} has none: leave it out")
        return first

    def held(self, image_shape: tuple[int, ...]) -> dict[str, Any]:
        first = self.first_stage()
        return super().held(image_shape) if first is None else {"tokenizer": first.state}
