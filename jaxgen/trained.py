"""What a trained model is used for, under one object for all families: `jaxgen.load` and three lines of a notebook.

Every method is a few lines around the pure functions of `jaxgen.gan`, `jaxgen.vae` and `jaxgen.latents`: it checks what
a person passes, and works on so many images at a time that memory is bounded, by programs that are compiled once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import jax.typing
import numpy as np
import optax

from jaxgen import batches, latents, losses, weights
from jaxgen.annealed import annealed_log_likelihood
from jaxgen.data.standardization import Standardization, of_plain
from jaxgen.families import Family, Spec, family_of
from jaxgen.keys import check_key, named_key
from jaxgen.spec import check_latents
from jaxgen.untrusted import check

Label = jax.typing.ArrayLike | str | Sequence[int | str]  # classes by their numbers or names
_PRETRAINED = Path(__file__).parent / "pretrained"
_PIECE = 500  # images at a time that are decoded or encoded
_ROWS = 800  # latents at a time that are climbed with, or chains that are run
_IMPORTANCE_SAMPLES = 10  # of each image at a time
_CHAINS = 16  # of an annealed likelihood


def prior_noise(spec: Spec, key: jax.Array, numbers: jax.Array) -> jax.Array:
    """The standard normal latents from which `gan_sample` and `vae_sample` make their images, those of some numbers.

    Latents [N, D]; of a VAE those of all stochastic layers, next to the data first, [N, D_1 + ... + D_L]. The numbers
    are int [N], ``jnp.arange(N)`` for the images of ``gan_sample(gan, state, key, N)``.
    """
    return family_of(spec).noise(spec, key, numbers)


def decode(spec: Spec, state: Any, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
    """The mean image [N, H, W, C] or [N, D] of each latent z [N, D], of either family.

    Of a VAE the latents are the noise of all stochastic layers, see `jaxgen.vae_decode_noise`, or, where its prior is
    learnt, the latents themselves. A conditional model needs the label, int [N].
    """
    return family_of(spec).decode(spec, state, z, label)


def _decoder(spec: Spec, state: Any, likelihood: Any, noise: losses.Likelihood) -> tuple[latents.Decoder, Any]:
    """(the decoder, the likelihood whose parameters it gives): where none is asked for, a VAE's own, a GAN's noise."""
    family = family_of(spec)
    family.check_noise(spec, "a search for latents")
    own = family.likelihood(spec)
    if own is not None and likelihood is None:
        return functools.partial(family.parameters, spec, state), own
    return functools.partial(decode, spec, state), noise if likelihood is None else likelihood


# Compiled here, once for each spec and size of a piece; what is static is compared by value.
_decode = functools.partial(jax.jit, static_argnums=0)(decode)


@functools.partial(jax.jit, static_argnums=0)
def _sample(spec: Spec, state: Any, key: jax.Array, numbers: jax.Array, label: jax.Array | None) -> jax.Array:
    family = family_of(spec)
    z = family.prior(spec, state, family.noise(spec, key, numbers), key, numbers)
    return family.decode(spec, state, z, label)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _invert(
    spec: Spec,
    state: Any,
    rows: dict[str, Any],
    key: jax.Array,
    likelihood: Any,
    options: tuple[Any, ...],
    prior_weight: Any,
) -> latents.Inversion:
    decoder, likelihood = _decoder(spec, state, likelihood, latents.INVERSION_NOISE)
    # Where pixels are hidden, an encoder would see what is in their place.
    encode = family_of(spec).encode
    start = encode(spec, state, rows) if encode is not None and "mask" not in rows else None
    return latents.invert(
        decoder,
        rows,
        key,
        _latent_dim(spec),
        mask=rows.get("mask"),
        start=start,
        likelihood=likelihood,
        prior_weight=prior_weight,
        **dict(options),
    )


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _complete(
    spec: Spec, state: Any, rows: dict[str, Any], key: jax.Array, likelihood: Any, options: tuple[Any, ...]
) -> latents.Completion:
    decoder, likelihood = _decoder(spec, state, likelihood, latents.COMPLETION_NOISE)
    return latents.complete(decoder, rows, rows["mask"], key, _latent_dim(spec), likelihood=likelihood, **dict(options))


def _latent_dim(spec: Spec) -> int:
    return sum(family_of(spec).latent_dims(spec))


def _pieces(num: int, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """(start, rows) of each piece; one program does all of them, so that the last is filled up with its last row."""
    size = min(num, most)
    for start in range(0, num, size):
        yield start, np.minimum(np.arange(start, start + size), num - 1)


def _by_pieces(function: Callable[[np.ndarray, jax.Array], Any], num: int, most: int, key: jax.Array) -> Any:
    """What a function of (rows, a piece's key) gives for all rows, [num, ...] of each leaf."""
    parts = []
    for start, rows in _pieces(num, most):
        # The first piece's is the key itself: so many images come out as those of the pure functions.
        piece_key = key if start == 0 else jax.random.fold_in(named_key(key, "piece"), start)
        part = function(rows, piece_key)
        parts.append(jax.tree.map(lambda leaf, start=start: leaf[: num - start], part))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and what it can do: sample, decode, encode, invert, complete, say how likely images are.

    Images are uint8 (0..255), bool or floats in [0, 1], [N, H, W, C]; or vectors [N, D]. What a model makes are mean
    images, floats, which of a Gaussian likelihood may lie a little outside of [0, 1]. Of a conditional model every
    method needs ``label``, one class for all images or [N], by numbers or names; of others none may be given. ``key``
    is a typed key, [].

    Args:
      name: what it is called.
      spec, state: the GAN, VAE or tokenizer and its state.
      image_shape: shape of one image, (H, W, C), or (D,) of a vector.
      image_type: of the images that it has learnt: ``"uint8"``, ``"bool"`` or ``"float32"``.
      record: plain data on how it was made.
    """

    name: str
    spec: Spec
    state: Any
    image_shape: tuple[int, ...]
    image_type: str
    record: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        codes = f", {self.num_codes} codes" if self.num_codes else ""
        latents = f"{self.latent_dim} latents{codes}{classes}"
        return f"Trained({self.name!r}: {self.family.title}, images {list(self.image_shape)}, {latents})"

    @property
    def family(self) -> Family:
        """The row of its spec in the table of families."""
        return family_of(self.spec)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, labels being 0 to that less 1; None of a model without labels."""
        return self.family.num_classes(self.spec, *self.family.in_use)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes from 0 on; None where the data had none."""
        names = self.record.get("class_names")
        check(names, list[str] | None, "class_names")
        return None if names is None else tuple(names)

    @functools.cached_property
    def standardization(self) -> Standardization | None:
        """What brought the data, vectors [N, D], to mean 0 and deviation 1; None of images."""
        described = self.record.get("identity", self.record)
        data = described.get("data") if isinstance(described, dict) else None
        found = of_plain(data.get("standardized")) if isinstance(data, dict) else None  # a note may be called so, too
        if found is not None and self.image_shape != found.mean.shape:
            raise ValueError(f"{self.name} makes vectors {list(self.image_shape)}, scaled as {list(found.mean.shape)}")
        return found

    def in_units(self, vectors: Any) -> Any:
        """What the model made, [..., D], in the data's units."""
        return vectors if self.standardization is None else self.standardization.undo(vectors)

    @property
    def latent_dim(self) -> int:
        """Number of latent dimensions, of all stochastic layers together."""
        return _latent_dim(self.spec)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of an image's latents: (h, w, c) of a tokenizer's grid, or (latent_dim,)."""
        return tuple(getattr(self.spec, "latent_shape", (self.latent_dim,)))

    @property
    def num_codes(self) -> int:
        """Number of codes that the places of a tokenizer's grid may have; 0 where it has none."""
        return getattr(self.spec, "num_codes", 0)

    def sample(self, key: jax.Array, num_samples: int, label: Label | None = None) -> jax.Array:
        """Draw ``num_samples`` images [N, H, W, C] from the prior, as `gan_sample` and `vae_sample` do.

        Image i depends on the key and on i alone.
        """
        check_key(key)
        if self.family.sample is None:
            raise TypeError(
                f"{self.name} is a {self.family.title}, which has no prior to draw from: train a second stage on its "
                "latents (jaxgen encode writes them), or use reconstruct"
            )
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        given = self._with_label({"number": np.arange(num_samples, dtype=np.int32)}, label, num_samples)

        def draw(rows: np.ndarray, _: jax.Array) -> jax.Array:
            part = _rows(given, rows)
            return self.in_units(_sample(self.spec, self.state, key, part["number"], part.get("label")))

        return _by_pieces(draw, num_samples, _PIECE, key)

    def decode(self, z: jax.typing.ArrayLike, label: Label | None = None) -> jax.Array:
        """The mean image [N, H, W, C] of each latent z [N, latent_dim], or [N, h, w, c] of a tokenizer.

        Of a VAE of several stochastic layers, the latents are the noise of all, next to the data first.
        """
        z = jnp.asarray(z, jnp.float32)
        z = z.reshape(len(z), -1) if z.ndim == 4 and z.shape[1:] == self.latent_shape else z
        check_latents(z, self.latent_dim)
        if not len(z):
            raise ValueError(f"expected latents [N, {self.latent_dim}], at least one, got shape {list(z.shape)}")
        given = self._with_label({"z": z}, label, len(z))

        def run(rows: np.ndarray, _: jax.Array) -> jax.Array:
            part = _rows(given, rows)
            return self.in_units(_decode(self.spec, self.state, part["z"], part.get("label")))

        return _by_pieces(run, len(z), _PIECE, jax.random.key(0))  # nothing is drawn

    def encode(self, images: jax.typing.ArrayLike, label: Label | None = None) -> jax.Array:
        """The latents [N, latent_dim] of images [N, H, W, C] that an encoder means, as `decode` takes them.

        Of a VAE they are posterior means, of a tokenizer its normalised latents, flat. A GAN has no encoder: use
        `invert`.
        """
        family = self.family
        if family.encode is None:
            raise TypeError(
                f"{self.name} is a {family.title}, which has no encoder: use invert, which searches for the latents"
            )
        batch = self._batch(images, label)

        def run(rows: np.ndarray, _: jax.Array) -> jax.Array:
            return family.encode(self.spec, self.state, _rows(batch, rows))

        return _by_pieces(run, len(batch["image"]), _PIECE, jax.random.key(0))  # nothing is drawn

    def codes(self, images: jax.typing.ArrayLike) -> jax.Array:
        """The codes of images [N, H, W, C], int32 [N, h, w] from 0 to ``num_codes`` - 1, by a tokenizer with codes."""
        self._check_codes()
        batch = self._batch(images, None)

        def run(rows: np.ndarray, _: jax.Array) -> jax.Array:
            return self.family.codes(self.spec, self.state, _rows(batch, rows))

        return _by_pieces(run, len(batch["image"]), _PIECE, jax.random.key(0))  # nothing is drawn

    def decode_codes(self, codes: jax.typing.ArrayLike) -> jax.Array:
        """The image [N, H, W, C] of codes, integers [N, h, w] such as `codes` gives."""
        self._check_codes()
        codes, grid = np.asarray(codes), self.latent_shape[:2]
        if codes.ndim != 3 or codes.shape[1:] != grid or not len(codes):
            raise ValueError(f"expected codes [N, {_sides(grid)}], at least one image's, got shape {list(codes.shape)}")
        if not np.issubdtype(codes.dtype, np.integer):
            raise TypeError(f"codes must be integers, got {codes.dtype}: give what codes(images) returned")
        if codes.min() < 0 or codes.max() >= self.num_codes:
            raise ValueError(
                f"{self.name} has the codes 0 to {self.num_codes - 1}, got codes from {codes.min()} to {codes.max()}"
            )

        def run(rows: np.ndarray, _: jax.Array) -> jax.Array:
            return self.family.decode_codes(self.spec, self.state, codes[rows].astype(np.int32))

        return _by_pieces(run, len(codes), _PIECE, jax.random.key(0))  # nothing is drawn

    def _check_codes(self) -> None:
        if not self.num_codes:
            others = " without codes" if self.family.codes is not None else ""
            use = "encode and decode" if self.family.encode is not None else "invert and decode"
            raise TypeError(f"{self.name} is a {self.family.title}{others}, whose images have no codes: use {use}")

    def reconstruct(self, images: jax.typing.ArrayLike, key: jax.Array, label: Label | None = None) -> jax.Array:
        """Images [N, H, W, C] as the model sees them: through the encoder of one that has it, by inversion of a GAN."""
        rebuild = self.family.reconstruct
        if rebuild is None:
            return self.invert(images, key, label).images
        check_key(key)
        batch = self._batch(images, label)

        def run(rows: np.ndarray, piece_key: jax.Array) -> jax.Array:
            return self.in_units(rebuild(self.spec, self.state, _rows(batch, rows), piece_key))

        return _by_pieces(run, len(batch["image"]), _PIECE, key)

    def invert(
        self,
        images: jax.typing.ArrayLike,
        key: jax.Array,
        label: Label | None = None,
        *,
        mask: Any = None,
        likelihood: losses.Likelihood | None = None,
        prior_weight: float = 1.0,
        num_restarts: int = 8,
        num_steps: int = 300,
        optimizer: optax.GradientTransformation | None = None,
    ) -> latents.Inversion:
        """Search for the latents [N, latent_dim] under which images are likeliest, see `jaxgen.latents.invert`.

        The first start of a VAE is where its encoder points, unless pixels are hidden. Not of a VAE with a learnt
        prior.

        Args:
          images: [N, H, W, C].
          key: typed key, [].
          label: of a conditional model, a class, or one for each image [N].
          mask: bool, True where a pixel is visible, [H, W] or [N, H, W] ([D] or [N, D] of vectors); None where all are.
          likelihood: of images given the mean image, e.g. ``losses.gaussian(scale=0.1)``, which is what None stands for
            with a GAN; with a VAE it stands for its own likelihood.
          prior_weight: weight of the prior, at least 0.
          num_restarts, num_steps: starts of each image, and steps of each.
          optimizer: optax transformation; build it once, as another one is compiled anew.
        """
        check_key(key)
        batch = self._batch(images, label, mask)
        options = (("num_restarts", num_restarts), ("num_steps", num_steps), ("optimizer", optimizer))

        def run(rows: np.ndarray, piece_key: jax.Array) -> latents.Inversion:
            part = _rows(batch, rows)
            found = _invert(self.spec, self.state, part, piece_key, likelihood, options, prior_weight)
            return found._replace(images=self.in_units(found.images))

        return _by_pieces(run, len(batch["image"]), max(1, _ROWS // max(1, num_restarts)), key)

    def complete(
        self,
        images: jax.typing.ArrayLike,
        mask: Any,
        key: jax.Array,
        label: Label | None = None,
        *,
        num_samples: int | None = 1,
        likelihood: losses.Likelihood | None = None,
        **options: Any,
    ) -> latents.Completion:
        """Complete images of which a part is visible, in as many ways as are asked for, see `jaxgen.latents.complete`.

        Images [N, S, H, W, C], whose visible pixels are those given, and their latents [N, S, latent_dim]. Not of a VAE
        with a learnt prior.

        Args:
          images: [N, H, W, C]; the hidden pixels are not looked at.
          mask: bool, True where a pixel is visible, [H, W] or [N, H, W] ([D] or [N, D] of vectors).
          key: typed key, [].
          label: of a conditional model, a class, or one for each image [N].
          num_samples: completions of each image S, drawn from the posterior; None for the single likeliest.
          likelihood: of images given the mean image; None for a VAE's own, and ``losses.gaussian(scale=0.3)`` of a GAN.
          **options: further numbers, and the optimizer, of `jaxgen.latents.complete`.
        """
        check_key(key)
        batch = self._batch(images, label, mask)
        each = (
            options.get("num_restarts", 8) if num_samples is None else options.get("chains_per_sample", 4) * num_samples
        )
        settings = tuple(sorted({"num_samples": num_samples, **options}.items()))

        def run(rows: np.ndarray, piece_key: jax.Array) -> latents.Completion:
            found = _complete(self.spec, self.state, _rows(batch, rows), piece_key, likelihood, settings)
            return found._replace(images=self.in_units(found.images))

        return _by_pieces(run, len(batch["image"]), max(1, _ROWS // max(1, each)), key)

    def interpolate(
        self,
        start: jax.typing.ArrayLike,
        end: jax.typing.ArrayLike,
        num: int,
        label: Label | None = None,
        *,
        linear: bool = False,
    ) -> jax.Array:
        """Images [N, num, H, W, C] on the way from latents to others, ``start`` and ``end`` [N, latent_dim].

        ``num``, at least 2, counts the ends too. The way is the arc, on which the images are as likely as samples, or
        with ``linear`` the straight line.
        """
        start, end = jnp.asarray(start, jnp.float32), jnp.asarray(end, jnp.float32)
        check_latents(start, self.latent_dim)
        if num < 2:
            raise ValueError(f"num must be at least 2, for both ends, got {num}")
        between = latents.linear_interpolation if linear else latents.spherical_interpolation
        z = between(start, end, jnp.linspace(0.0, 1.0, num))
        given = self._with_label({}, label, len(start)).get("label")
        images = self.decode(z.reshape(-1, self.latent_dim), None if given is None else np.repeat(given, num))
        return images.reshape(len(start), num, *images.shape[1:])

    def log_likelihood(
        self,
        images: jax.typing.ArrayLike,
        key: jax.Array,
        label: Label | None = None,
        likelihood: losses.Likelihood | None = None,
        num_samples: int = 5000,
        **annealing: Any,
    ) -> jax.Array:
        """How likely images [N, H, W, C] are: log p(x) of each in nats, [N].

        Of a VAE under its own likelihood, by importance sampling with ``num_samples``, `vae_log_likelihood`. With a
        ``likelihood``, which a GAN needs, such as ``losses.gaussian(scale=0.1)``, under that noise around the mean
        images, by annealed importance sampling, `gan_log_likelihood` and `vae_annealed_log_likelihood`: ten thousand
        passes of the network for each image and chain. Its ``annealing`` arguments are ``num_chains``,
        ``num_temperatures`` and ``num_leapfrog``. Numbers of different likelihoods do not compare.
        """
        check_key(key)
        family = self.family
        if likelihood is None and family.importance_sampling is None:
            raise ValueError(
                f"{self.name} is a {family.title}, whose images have a likelihood only with noise around them: pass "
                "likelihood=jaxgen.losses.gaussian(scale=0.1), say, and quote the scale with the number"
            )
        if likelihood is None and annealing:
            raise TypeError(f"{', '.join(annealing)}: of annealed chains, which are for a given likelihood")
        batch = self._batch(images, label)
        most = _PIECE if likelihood is None else max(1, _ROWS // max(1, annealing.get("num_chains", _CHAINS)))

        def run(rows: np.ndarray, piece_key: jax.Array) -> jax.Array:
            part = _rows(batch, rows)
            given = self.spec, self.state, part, piece_key
            if likelihood is None:
                return family.importance_sampling(*given, num_samples, chunk_size=_IMPORTANCE_SAMPLES).log_likelihood
            settings = {"num_chains": _CHAINS, **annealing}
            return annealed_log_likelihood(*given, likelihood, **settings).log_likelihood

        found = _by_pieces(run, len(batch["image"]), most, key)
        return found if self.standardization is None else found - self.standardization.log_scale

    def _with_label(self, given: dict[str, Any], label: Any, num: int) -> dict[str, Any]:
        """What is given, with a label for each of so many images where the model has labels."""
        classes = self.num_classes
        if classes is None:
            if label is not None:
                raise ValueError(f"{self.name} has learnt no classes: leave label out")
            return given
        if label is None:
            raise ValueError(
                f"{self.name} is conditional: pass label, a class from 0 to {classes - 1}, or one for each image"
            )
        label = np.asarray(label)
        if label.dtype.kind == "U":
            label = np.array([class_number(str(each), self.class_names, classes) for each in label.flat]).reshape(
                label.shape
            )
        if label.ndim == 0:
            label = np.repeat(label, num)
        batches.read_label(label, num)  # for its checks
        low, high = label.min(), label.max()
        if low < 0 or high >= classes:
            raise ValueError(f"{self.name} knows the classes 0 to {classes - 1}, got labels from {low} to {high}")
        return {**given, "label": label.astype(np.int32)}

    def _batch(self, images: Any, label: Any, mask: Any = None) -> dict[str, Any]:
        """Images with their label, and their mask, each checked."""
        images = np.asarray(images)
        if images.shape == self.image_shape:
            raise ValueError(f"expected images [N, {_sides(self.image_shape)}], got one image: pass images[None]")
        batches.check_images(images, bounded=len(self.image_shape) == 3)
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"{self.name} has learnt images of shape {list(self.image_shape)}, got {list(images.shape[1:])}: "
                "resize or convert them"
            )
        if self.standardization is not None:
            images = self.standardization(images.astype(np.float32))
        batch = self._with_label({"image": images}, label, len(images))
        if mask is not None:
            batch["mask"] = np.asarray(latents.read_mask(mask, images.shape))
        return batch


def class_number(label: str, names: Sequence[str] | None, num_classes: int) -> int:
    """The number of a class that is given by its name, in any case, or by its number; a ValueError lists the names."""
    known = [name.casefold() for name in names or ()]
    found = [number for number, name in enumerate(known) if name == label.casefold()]
    if not found and known:  # "boot" where there is one class of boots
        found = [number for number, name in enumerate(known) if label.casefold() in name.replace("/", " ").split()]
    if len(found) == 1:
        return found[0]
    if label.isdecimal() and int(label) < num_classes and not found:
        return int(label)
    listed = f"one of {', '.join(names)}" if names else f"a class from 0 to {num_classes - 1}"
    raise ValueError(f"label must be {listed}, got {label!r}")


def _sides(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _rows(arrays: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Some rows of each array; floats in single precision, so that one program does for all."""
    chosen = {name: array[rows] for name, array in arrays.items()}
    return {
        name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in chosen.items()
    }


def pretrained() -> tuple[str, ...]:
    """Names of the models that come with the package, for `load`."""
    return tuple(sorted(path.stem for path in _PRETRAINED.glob("*.safetensors")))


def load(source: str | Path, checkpoint: Literal["newest", "best"] | int = "newest") -> Trained:
    """Load a trained model.

        model = jaxgen.load("vae-fashion-mnist")
        images = model.sample(jax.random.key(0), 16)

    Args:
      source: the name of a pretrained model (`jaxgen.trained.pretrained` lists them), a run directory that ``jaxgen
        train`` wrote, or a .safetensors file that `jaxgen.weights.save_weights` wrote.
      checkpoint: of a run directory: ``"newest"``, ``"best"`` or a step.
    """
    path = Path(source)
    if not isinstance(source, Path) and source in pretrained():
        path = _PRETRAINED / f"{source}.safetensors"
    if path.is_dir():
        from jaxgen.training.run import Run  # with Orbax, which takes most of a second to import

        run = Run.open(path)
        data = run.config["identity"]["data"]
        record = {"identity": run.config["identity"], "versions": run.config["versions"]}
        if "class_names" in run.config["settings"]:
            record["class_names"] = run.config["settings"]["class_names"]
        state = run.restore(checkpoint)
        return Trained(path.resolve().name, run.spec, state, tuple(data["image_shape"]), data["image_type"], record)
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(source)!r} is no run directory, no .safetensors file and no pretrained model: the pretrained ones "
            f"are {', '.join(pretrained()) or 'none, in this installation'}"
        )
    if checkpoint != "newest":
        raise ValueError(f"{path} holds one state: checkpoint={checkpoint!r} is for run directories")
    return Trained(path.stem, *weights.load_weights(path))
