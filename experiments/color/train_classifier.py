"""Train the small classifier of colour pictures whose features generated colour images are judged by.

    npm pack emoji-datasource-google && tar xzf emoji-datasource-google-16.0.0.tgz
    uv run experiments/color/train_classifier.py --emoji package --digits idx:mnist --clothes idx:fashion_mnist

Every training picture is composed: a shape, a digit, a garment or an emoji before a textured ground, in random colours,
then blurred, noisy, or left as it is. The classifier learns five answers at once: which object, which texture, the hue
of the ground and of the object, and what was done to the picture. The weights are stored in half precision; the
accuracy is that of what is stored, on emoji, digits and clothes that were not trained on. The same options give the
same file on the same machine and versions.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from jaxgen import data
from jaxgen.cli.exit_status import command
from jaxgen.evaluation.extractors import COLOR_SIDE, color_lenet
from jaxgen.intervals import Count, Positive, Seed
from jaxgen.keys import named_key, step_key
from jaxgen.training import machine
from jaxgen.training.files import check_place
from jaxgen.weights import write_arrays

SHAPES = ("disc", "square", "diamond", "triangle", "ring", "cross", "star", "crescent", "bar", "frame")
TEXTURES = ("plain", "gradient", "stripes", "checks", "dots", "rings", "clouds", "waves")
HUES = 12  # and one more for white, grey and black
DONE = ("nothing", "little blur", "much blur", "little noise", "much noise")
EMOJI_SIZE = 64  # pixels
HELD_OUT = 5  # every so many-th emoji is not trained on
OBJECTS = ("shapes", "digits", "clothes", "emoji")  # the quarters of a batch, in order
UNKNOWN = -1  # a label that a picture has not got

Stock = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """Train the small classifier of colour pictures whose features generated colour images are judged by."""

    emoji: Path = Path("package")
    """The unpacked npm package emoji-datasource-google: its emoji.json, and its pictures of 64 pixels (Apache 2.0)."""
    digits: str = "mnist"
    """MNIST: its TFDS name, idx:DIR or npz:PATH."""
    clothes: str = "fashion_mnist"
    """Fashion-MNIST, likewise."""
    steps: Count = 6_000
    """Number of optimizer steps."""
    batch_size: Count = 64
    """Number of images in a batch, a quarter of each kind of object."""
    learning_rate: Positive = 2e-3
    """Adam's learning rate at the start; it decays to zero along a cosine."""
    seed: Seed = 0
    """Fixes the initialisation and every picture."""
    held_out: Path | None = None
    """Also copy the emoji that are not trained on into this folder, a subfolder a category, to try the features on."""
    out: Path = Path("lenet_color.safetensors")
    """The .safetensors file to write."""

    def check(self) -> None:
        """Refuse what makes no sense, before anything is read or written."""
        if self.batch_size % len(OBJECTS):
            raise ValueError(f"--batch-size must be a multiple of {len(OBJECTS)}, got {self.batch_size}")
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out must end in .safetensors, got {self.out}")
        check_place(self.out)
        if not (self.emoji / "emoji.json").is_file():
            raise FileNotFoundError(f"--emoji {self.emoji} holds no emoji.json: unpack emoji-datasource-google there")


# -- Pictures ---------------------------------------------------------------------------------------------------------


def hue_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Colours [B, 3] of hue, saturation and value in [0, 1], [B] each."""
    wheel = jnp.abs((hue[:, None] * 6.0 + jnp.array([[0.0, 4.0, 2.0]])) % 6.0 - 3.0) - 1.0
    return value[:, None] * (1.0 - saturation[:, None] * (1.0 - jnp.clip(wheel, 0.0, 1.0)))


def colors(key: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """(colours [B, 3], their hues' labels [B]): a fifth of them white, grey or black."""
    keys = jax.random.split(key, 4)
    hue, grey, other = (jax.random.uniform(k, (num,)) for k in keys[:3])
    level = jax.random.uniform(keys[3], (num,), minval=0.45)
    without = grey < 0.2
    level = jnp.where(without, jnp.clip(1.4 * other - 0.2, 0.0, 1.0), level)
    label = jnp.where(without, HUES, jnp.floor(hue * HUES)).astype(jnp.int32)
    return hue_to_rgb(hue, jnp.where(without, 0.0, 0.4 + 0.6 * other), level), label


def _grid(key: jax.Array, num: int, turn: float, zoom: tuple[float, float], shift: float) -> tuple[jax.Array, ...]:
    """Coordinates x and y [B, S, S] of the pixels, turned, enlarged and shifted by chance; 1 is half of the frame."""
    keys = jax.random.split(key, 3)
    places = (jnp.arange(COLOR_SIDE) + 0.5) / COLOR_SIDE * 2.0 - 1.0
    angle = jax.random.uniform(keys[0], (num, 1, 1), minval=-turn, maxval=turn)
    size = jax.random.uniform(keys[1], (num, 1, 1), minval=zoom[0], maxval=zoom[1])
    moved = jax.random.uniform(keys[2], (2, num, 1, 1), minval=-shift, maxval=shift)
    across, down = (places[None, None] - moved[0]) / size, (places[None, :, None] - moved[1]) / size
    return jnp.cos(angle) * across + jnp.sin(angle) * down, jnp.cos(angle) * down - jnp.sin(angle) * across


def textures(key: jax.Array, num: int, share_plain: float) -> tuple[jax.Array, jax.Array]:
    """(how much of the second colour is where [B, S, S], their labels [B])."""
    keys = jax.random.split(key, 7)
    x, y = _grid(keys[0], num, jnp.pi, (0.25, 0.5), 0.5)
    coarse = jax.random.uniform(keys[1], (num, 6, 6))
    clouds = jax.image.resize(coarse, (num, COLOR_SIDE, COLOR_SIDE), "cubic")
    sharp = jax.random.uniform(keys[2], (num, 1, 1), minval=1.0, maxval=8.0)

    def wave(t: jax.Array) -> jax.Array:
        return 0.5 + 0.5 * jnp.clip(sharp * jnp.sin(jnp.pi * t), -1.0, 1.0)

    radius = jnp.sqrt(x * x + y * y)
    cells = jnp.sqrt(jnp.square((x % 1.0) - 0.5) + jnp.square((y % 1.0) - 0.5))
    kinds = [
        jnp.zeros_like(x),
        jnp.clip(0.5 + 0.25 * x, 0.0, 1.0),
        wave(2.0 * x),
        0.5 + 0.5 * (2.0 * wave(x) - 1.0) * (2.0 * wave(y) - 1.0),
        jnp.clip(0.5 + sharp * (0.3 - cells), 0.0, 1.0),
        wave(2.0 * radius),
        jnp.clip(0.5 + 2.0 * (clouds - 0.5), 0.0, 1.0),
        wave(2.0 * x + 0.6 * jnp.sin(jnp.pi * y)),
    ]
    plain = jax.random.uniform(keys[3], (num,)) < share_plain
    label = jnp.where(plain, 0, jax.random.randint(keys[4], (num,), 0, len(TEXTURES)))
    return jnp.stack(kinds, axis=1)[jnp.arange(num), label], label


def grounds(key: jax.Array, num: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(textured grounds [B, S, S, 3], labels of the texture [B], labels of the hue [B])."""
    keys = jax.random.split(key, 5)
    pattern, texture = textures(keys[0], num, 0.3)
    first, hue = colors(keys[1], num)
    # A third of the plain ones are as white as the grounds of most collections, or black.
    drawn = jax.random.uniform(keys[2], (num,))
    bare = (texture == 0) & (drawn < 0.6)
    first = jnp.where(bare[:, None], (drawn < 0.45).astype(jnp.float32)[:, None], first)
    hue = jnp.where(bare, HUES, hue)
    # The second colour is a tone of the first, lighter or darker: the ground has one hue.
    tone = jax.random.uniform(keys[3], (num, 1), minval=0.35, maxval=0.9)
    lighter = jax.random.bernoulli(keys[4], shape=(num, 1))
    second = jnp.where(lighter, 1.0 - tone * (1.0 - first), tone * first)
    mixed = first[:, None, None] + pattern[..., None] * (second - first)[:, None, None]
    return mixed, texture, hue


def shapes(key: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """(how much of each pixel a shape covers [B, S, S], their labels [B])."""
    keys = jax.random.split(key, 2)
    x, y = _grid(keys[0], num, 0.3, (0.5, 0.9), 0.25)
    radius, angle = jnp.sqrt(x * x + y * y), jnp.arctan2(x, -y)
    square, diamond = jnp.maximum(jnp.abs(x), jnp.abs(y)), jnp.abs(x) + jnp.abs(y)
    points = jnp.abs((angle / (2 * jnp.pi / 5) + 0.5) % 1.0 - 0.5) * 2.0  # 0 at the tips of a star
    inside = [  # above 0 inside, in units of half of the frame
        0.9 - radius,
        0.75 - square,
        0.95 - diamond,
        jnp.minimum(0.6 - y, (0.8 + y) * 0.5 - jnp.abs(x) * 0.85),
        0.22 - jnp.abs(radius - 0.68),
        jnp.maximum(jnp.minimum(0.25 - jnp.abs(x), 0.9 - jnp.abs(y)), jnp.minimum(0.25 - jnp.abs(y), 0.9 - jnp.abs(x))),
        (1.0 - 0.6 * points) - radius,
        jnp.minimum(0.9 - radius, jnp.sqrt(jnp.square(x - 0.4) + jnp.square(y)) - 0.65),
        jnp.minimum(0.95 - jnp.abs(x), 0.28 - jnp.abs(y)),
        0.18 - jnp.abs(square - 0.65),
    ]
    label = jax.random.randint(keys[1], (num,), 0, len(SHAPES))
    chosen = jnp.stack(inside, axis=1)[jnp.arange(num), label]
    return jnp.clip(0.5 + chosen * COLOR_SIDE * 0.35, 0.0, 1.0), label


def placed(key: jax.Array, pictures: jax.Array, mirrored: bool, zoom: tuple[float, float] = (0.6, 1.05)) -> jax.Array:
    """Pictures [B, H, H, C] in the frame, [B, S, S, C]: enlarged, shifted and perhaps mirrored by chance."""
    num, size = pictures.shape[:2]
    keys = jax.random.split(key, 4)
    scale = jax.random.uniform(keys[0], (num, 1), minval=zoom[0], maxval=zoom[1])
    places = (jnp.arange(COLOR_SIDE) + 0.5) / COLOR_SIDE - 0.5

    def weights(key: jax.Array, sign: jax.Array) -> jax.Array:
        moved = jax.random.uniform(key, (num, 1), minval=-1.0, maxval=1.0) * (0.12 + 0.3 * jnp.maximum(0, 1 - scale))
        at = (sign * (places[None] - moved) / scale + 0.5) * size - 0.5
        width = jnp.maximum(1.0, size / (scale * COLOR_SIDE))
        near = jnp.maximum(0.0, 1.0 - jnp.abs(at[:, :, None] - jnp.arange(size)[None, None]) / width[:, :, None])
        return near / width[:, :, None]

    mirror = jnp.where(jax.random.bernoulli(keys[1], shape=(num, 1)), -1.0, 1.0) if mirrored else jnp.ones((num, 1))
    down, across = weights(keys[2], jnp.ones((num, 1))), weights(keys[3], mirror)
    return jnp.einsum("bhwc,bih,bjw->bijc", pictures, down, across)


def _blurred(images: jax.Array, sigma: jax.Array) -> jax.Array:
    """Images [B, S, S, C] under Gaussian windows of their own widths in pixels, [B]; those of 0 as they are."""
    gap = jnp.square(jnp.arange(COLOR_SIDE)[:, None] - jnp.arange(COLOR_SIDE)[None])
    window = jnp.exp(-0.5 * gap[None] / jnp.square(jnp.maximum(sigma, 0.05))[:, None, None])
    window = window / jnp.sum(window, axis=2, keepdims=True)
    return jnp.einsum("bhwc,bih,bjw->bijc", images, window, window)


def compose(stock: Stock, key: jax.Array, num: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Draw training pictures.

    Args:
      stock: uint8 ``digits`` [N, 28, 28], ``clothes`` [M, 28, 28] and ``emoji`` [K, 64, 64, 4], and their labels by
        ``digits_label`` and so on, int [N], [M], [K].
      key: typed key of all of them, [].
      num: number of pictures B, a multiple of four: shapes, digits, clothes and emoji in turn.

    Returns:
      (pictures in [0, 1], [B, S, S, 3]; int32 [B] by the name of each task, -1 where a picture has no such label).
    """
    part = num // len(OBJECTS)
    ground, texture, ground_hue = grounds(named_key(key, "grounds"), num)
    color, object_hue = colors(named_key(key, "colors"), num)

    def taken(name: str) -> tuple[jax.Array, jax.Array]:
        chosen = jax.random.randint(named_key(key, name), (part,), 0, stock[name].shape[0])
        return stock[name][chosen].astype(jnp.float32) / 255.0, stock[f"{name}_label"][chosen]

    cover, shape = shapes(named_key(key, "shapes"), part)
    digits, digit = taken("digits")
    clothes, garment = taken("clothes")
    emoji, category = taken("emoji")
    digits, clothes = (
        placed(named_key(key, f"place {name}"), pictures[..., None], mirrored)[..., 0]
        for name, pictures, mirrored in (("digits", digits, False), ("clothes", clothes, True))
    )
    emoji = placed(
        named_key(key, "place emoji"), jnp.concatenate([emoji[..., :3] * emoji[..., 3:], emoji[..., 3:]], -1), True
    )
    covers = jnp.concatenate([cover, digits, jnp.clip(4.0 * clothes, 0.0, 1.0), emoji[..., 3]])
    covers = jnp.clip(covers, 0.0, 1.0)[..., None]
    one = jnp.ones_like(cover)
    # Garments keep their folds: their brightness is that of the cloth.
    shade = jnp.concatenate([one, one, 0.25 + 0.75 * clothes, one])[..., None]
    painted = covers * shade * color[:, None, None]
    painted = jnp.concatenate([painted[: 3 * part], emoji[..., :3]])
    images = painted + (1.0 - covers) * ground

    done = jnp.where(
        jax.random.bernoulli(named_key(key, "whether"), shape=(num,)),
        jax.random.randint(named_key(key, "what"), (num,), 1, len(DONE)),
        0,
    )
    amount = jax.random.uniform(named_key(key, "amount"), (num,))
    sigma = jnp.select([done == 1, done == 2], [0.5 + 0.4 * amount, 0.9 + 1.1 * amount], 0.0)
    scale = jnp.select([done == 3, done == 4], [0.03 + 0.05 * amount, 0.08 + 0.17 * amount], 0.0)
    images = _blurred(images, sigma)
    images = images + scale[:, None, None, None] * jax.random.normal(named_key(key, "noise"), images.shape)
    first = len(SHAPES)
    labels = {
        "object": jnp.concatenate([shape, first + digit, first + 10 + garment, first + 20 + category]),
        "texture": texture,
        "ground hue": ground_hue,
        "object hue": jnp.where(jnp.arange(num) < 3 * part, object_hue, UNKNOWN),
        "done": done,
    }
    return jnp.clip(images, 0.0, 1.0), {name: label.astype(jnp.int32) for name, label in labels.items()}


def tasks(categories: int) -> dict[str, int]:
    """How many answers each task has, in the order of the logits."""
    of_objects = len(SHAPES) + 20 + categories
    hues = HUES + 1
    return {"object": of_objects, "texture": len(TEXTURES), "ground hue": hues, "object hue": hues, "done": len(DONE)}


# -- The stock --------------------------------------------------------------------------------------------------------


def emoji_of(folder: Path, held_out: bool) -> tuple[list[tuple[Path, str]], list[str]]:
    """((file, category) of emoji that are trained on, or that are not; all categories): with all its variations, an
    emoji is on one side."""
    found = []
    for each in json.loads((folder / "emoji.json").read_text()):
        number = int.from_bytes(hashlib.sha256(each["unified"].encode()).digest()[:8], "big")
        if each["category"] == "Component" or (number % HELD_OUT == 0) != held_out:
            continue
        for picture in (each, *each.get("skin_variations", {}).values()):
            path = folder / "img" / "google" / str(EMOJI_SIZE) / picture["image"]
            if path.is_file():
                found.append((path, each["category"]))
    return sorted(found), sorted({category for _, category in found})


def stock_of(options: Options, test: bool) -> dict[str, np.ndarray]:
    """What pictures are composed of, for training or for the test."""
    from PIL import Image

    made: dict[str, np.ndarray] = {}
    for name, place in (("digits", options.digits), ("clothes", options.clothes)):
        found = data.load(place, "test" if test else "train")
        made |= {name: found["image"][..., 0], f"{name}_label": found["label"]}
    files, categories = emoji_of(options.emoji, test)
    pictures = []
    for path, _ in files:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGBA")))
    labels = np.array([categories.index(category) for _, category in files], np.int32)
    return {**made, "emoji": np.stack(pictures), "emoji_label": labels}


# -- Training ---------------------------------------------------------------------------------------------------------


def _split(logits: jax.Array, sizes: Mapping[str, int]) -> dict[str, jax.Array]:
    ends = np.cumsum(list(sizes.values()))[:-1]
    return dict(zip(sizes, jnp.split(logits, ends, axis=1), strict=True))


@partial(jax.jit, static_argnums=range(4), donate_argnums=4)
def train(
    network: Any, optimizer: Any, sizes: tuple[tuple[str, int], ...], batch_size: int, state: Any, stock: Stock,
    key: jax.Array, first: jax.Array, last: jax.Array,
) -> Any:  # fmt: skip
    """Take the steps from the first to before the last: (parameters, optimizer's state, sum of losses [])."""

    def step(number: jax.Array, state: Any) -> Any:
        params, optimizer_state, total = state
        images, labels = compose(stock, step_key(key, "pictures", number), batch_size)

        def loss(params: Any) -> jax.Array:
            answers = _split(network.apply({"params": params}, images)[1], dict(sizes))
            losses = []
            for name, logits in answers.items():
                known = labels[name] != UNKNOWN
                each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels[name], 0))
                losses.append(jnp.sum(each * known) / jnp.sum(known))
            return jnp.stack(losses).sum()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state, total + value

    return jax.lax.fori_loop(first, last, step, (*state, jnp.zeros(())))


def accuracies(
    network: Any, params: Any, sizes: Mapping[str, int], stock: Stock, key: jax.Array, num: int
) -> dict[str, float]:
    """Share of right answers of each task on so many new pictures, and of the objects of each kind."""
    right: dict[str, list[np.ndarray]] = {}
    program = jax.jit(lambda key: _answers(network, params, sizes, stock, key))
    for number in range(-(-num // 1000)):
        found, labels = jax.device_get(program(jax.random.fold_in(key, number)))
        for name in sizes:
            known = labels[name] != UNKNOWN
            right.setdefault(name, []).append((found[name] == labels[name])[known])
        for name, part in zip(OBJECTS, np.split(found["object"] == labels["object"], len(OBJECTS)), strict=True):
            right.setdefault(name, []).append(part)
    return {name: float(np.mean(np.concatenate(parts))) for name, parts in right.items()}


def _answers(network: Any, params: Any, sizes: Mapping[str, int], stock: Stock, key: jax.Array) -> Any:
    images, labels = compose(stock, key, 1000)
    answers = _split(network.apply({"params": params}, images)[1], sizes)
    return {name: jnp.argmax(logits, axis=1) for name, logits in answers.items()}, labels


def run(options: Options) -> None:
    """Train, measure and write."""
    options.check()
    if options.held_out is not None:
        for path, category in emoji_of(options.emoji, True)[0]:
            folder = options.held_out / category.replace(" & ", "_").replace(" ", "_").lower()
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.name)
    training, test = (stock_of(options, test) for test in (False, True))
    sizes = tasks(int(training["emoji_label"].max()) + 1)
    network = color_lenet(sum(sizes.values()))
    optimizer = optax.adam(optax.cosine_decay_schedule(options.learning_rate, options.steps))
    key = jax.random.key(options.seed)
    blank = jnp.zeros((1, COLOR_SIDE, COLOR_SIDE, 3))
    params = jax.jit(network.init)(named_key(key, "init"), blank)["params"]
    state, stock = (params, optimizer.init(params)), jax.device_put(training)
    print(f"{len(training['emoji'])} emoji, {len(test['emoji'])} held out; {options.steps} steps on {jax.devices()[0]}")
    begin, every = time.monotonic(), max(1, options.steps // 20)
    program = partial(train, network, optimizer, tuple(sizes.items()), options.batch_size)
    for first in range(0, options.steps, every):
        last = min(first + every, options.steps)
        *state, total = program(tuple(state), stock, key, first, last)
        spent = time.monotonic() - begin
        print(f"step {last}/{options.steps}  loss {float(total) / (last - first):.4f}  {spent:.0f} s", flush=True)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state[0])
    stored = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    found = accuracies(network, stored, sizes, jax.device_put(test), named_key(key, "test"), 20_000)
    record = {
        "network": "LeNet",
        "dataset": "color",
        "tasks": sizes,
        "test_accuracy": found,
        "num_test_images": 20_000,
        "num_images": {name: len(training[name]) for name in OBJECTS[1:]},
        "stock_sha256": {name: hashlib.sha256(training[name].tobytes()).hexdigest() for name in OBJECTS[1:]},
        "steps": options.steps,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "versions": machine.versions(),
    }
    arrays = {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(half, sep=".").items()}
    write_arrays(options.out, arrays, record)
    print("test accuracy: " + ", ".join(f"{name} {share:.4f}" for name, share in found.items()))
    print(options.out)


main = command(Options, run, "train_classifier.py")


if __name__ == "__main__":
    sys.exit(main())
