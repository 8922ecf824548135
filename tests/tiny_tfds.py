"""A TFDS set of a few pictures, prepared by TFDS without a network (and, as array_record, without TensorFlow)."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def picture(index: int) -> np.ndarray:
    """The picture number ``index``: uint8 [28, 28, 1]."""
    return np.random.default_rng(index).integers(0, 256, (28, 28, 1), dtype=np.uint8)


class TinyGarments(tfds.core.GeneratorBasedBuilder):
    """Forty pictures with labels, and the string ids that stock sets such as cifar10 have."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "id": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(range(30)), "test": self._generate_examples(range(30, 40))}

    def _generate_examples(self, indices: range) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            png = io.BytesIO()
            Image.fromarray(picture(index)[..., 0]).save(png, "PNG")
            png.seek(0)
            yield index, {"image": png, "label": index % 10, "id": f"garment-{index}"}


def prepare(data_dir: Path, file_format: str = "array_record") -> None:
    """Prepare ``tiny_garments`` in a folder."""
    builder = TinyGarments(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
