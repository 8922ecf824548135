"""Every picture that is written for somebody to look at: it says what it shows, and so does its file.

Grids of images are drawn with Pillow, exact to the pixel, and charts with Matplotlib, without a screen. The words of a
picture are in its file as well, in full: ``Title`` and ``Description`` of a PNG, the comment of a GIF. They are for who
cannot see it, and for programs; nothing in a file depends on when it was made.

A character that the font (DejaVu Sans, which comes with Matplotlib) cannot draw is shown as a square.
"""

import functools
import importlib.util
import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.training.files import replacing

TITLE, HEAD, NOTE = 14, 12, 11  # heights of letters in pixels
INK, SOFT = (0, 0, 0), (90, 90, 90)
NARROWEST = 420  # pixels of a picture's width, where its titles need them
GAP = 6  # pixels between words and images
LONGEST = 48  # characters of a name that are shown, and of a word in a title
SQUARE, LOST = "\u25a1", "\ufffd"  # drawn in place of a character; in a file, in place of half a character
_MOST = 20_000  # characters of a description


class Picture(NamedTuple):
    """Images with their titles.

    Args:
      pixels: uint8 [height, width, 3].
      title: what it shows.
      description: all its other words.
      places: where the images alone are: left, top, width and height in pixels, of each part.
    """

    pixels: np.ndarray
    title: str
    description: str
    places: tuple[tuple[int, int, int, int], ...]


# -- Words


def one_line(text: str) -> str:
    """Text as a file takes it: on one line, without control characters or halves of characters."""
    found = "".join({"Cc": " ", "Cs": LOST}.get(unicodedata.category(character), character) for character in text)
    return " ".join(found.split())


@functools.cache
def _font(size: int, shaped: bool = True) -> Any:
    """Matplotlib's own font, found without importing it, which takes half a second; letters are shaped by those beside
    them, as Arabic needs, where Pillow can."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("pictures are titled with Matplotlib's font: pip install matplotlib")
    (folder,) = found.submodule_search_locations
    path = str(Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
    return ImageFont.truetype(path, size, layout_engine=None if shaped else ImageFont.Layout.BASIC)


@functools.cache
def _drawn(character: str) -> bytes:
    """A character's pixels, by itself."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (32, 32))
    ImageDraw.Draw(picture).text((8, 8), character, fill=255, font=_font(HEAD, shaped=False))
    return picture.tobytes()


def _in_the_font(character: str) -> bool:
    return _drawn(character) != _drawn("\uffff")  # which is no character: the sign for what is missing


def drawable(text: str) -> str:
    """Text as the font draws it, on one line: a square for what it lacks, nothing for what only joins or turns."""
    found = []
    for character in one_line(text):
        kind = unicodedata.category(character)
        there = character == " " or _in_the_font(character)
        if kind != "Cf" and (there or kind not in ("Mn", "Me")):
            found.append(character if there else SQUARE)
    return "".join(found)


def shortened(text: str, longest: int = LONGEST) -> str:
    """A name of at most so many characters: of a longer one the beginning and the end."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - half]}…{text[-half:]}"


def named(kind: str, number: int, names: Sequence[str] | None) -> str:
    """What to call one of several: by its name, with its number where the font lacks a part of that.

    ``kind`` is what they are, as "class"; ``names`` are those from number 0 on, or None where there are none.
    """
    name = "" if names is None or number >= len(names) else one_line(names[number])
    shown = drawable(name)
    if not shown:
        return f"{kind} {number}"
    return name if SQUARE not in shown else f"{kind} {number}: {name}"


def _wrapped(text: str, size: int, width: float) -> list[str]:
    """Lines of a text that are not wider than so many pixels; single words that are wider are shortened."""
    font, lines = _font(size), list[str]()
    for word in drawable(text).split():
        fits = (short for most in range(LONGEST, 4, -4) if font.getlength(short := shortened(word, most)) <= width)
        word = next(fits, shortened(word, 4))
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _sentence(name: str, texts: Iterable[str]) -> str:
    listed = ", ".join(dict.fromkeys(filter(None, map(one_line, texts))))
    return f"{name}: {listed}." if listed else ""


# -- Grids of images


def enlargement(image_shape: Sequence[int], side: int = 56) -> int:
    """Pixels of a picture for a pixel of images, so that they are about as large as a square of that ``side``.

    1 of large ones. ``image_shape`` is [H, W, C].
    """
    height, width = image_shape[:2]
    return max(1, round(side / math.sqrt(height * width)))


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Pixels [..., H, W, C] each repeated so many times along both sides."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)


def titled(
    pixels: np.ndarray,
    title: str,
    note: str = "",
    rows: Sequence[str] = (),
    columns: Sequence[tuple[str, int]] = (),
) -> Picture:
    """Put titles around a grid, whose pixels stay as they are.

    Args:
      pixels: the grid, uint8 [height, width, 3].
      title: what it shows.
      note: what else is to be known, in small letters below it.
      rows: names of its rows, which are equally high.
      columns: names of its columns, each with how many equally wide ones it is above.
    """
    from PIL import Image, ImageDraw

    title, note = one_line(title), one_line(note)
    if not title:
        raise ValueError("a picture needs a title that says what it shows")
    height, width = pixels.shape[:2]
    heard = (note, _sentence("Columns", (name for name, _ in columns)), _sentence("Rows, from above", rows))
    if SQUARE in drawable("".join((title, note, *rows, *(name for name, _ in columns)))):
        note = f"{note} {SQUARE}: not in the font; the file's description has it.".strip()
    names = [shortened(drawable(row), LONGEST // 2) for row in rows]
    left = GAP + max((int(_font(HEAD).getlength(name)) + GAP for name in names), default=0)
    whole = max(left + width + GAP, NARROWEST)
    lines = [(line, TITLE, INK) for line in _wrapped(title, TITLE, whole - 2 * GAP)]
    lines += [(line, NOTE, SOFT) for line in _wrapped(note, NOTE, whole - 2 * GAP)]
    share = width / max(1, sum(span for _, span in columns))
    heads = [(_wrapped(name, NOTE, share * span - 2), span) for name, span in columns]
    most = max((len(head) for head, _ in heads), default=0)
    top = GAP + sum(size + GAP for _, size, _ in lines) + most * (NOTE + 2) + GAP * bool(most)
    canvas = Image.new("RGB", (whole, top + height + GAP), "white")
    draw, y = ImageDraw.Draw(canvas), GAP
    for line, size, color in lines:
        draw.text((GAP, y), line, fill=color, font=_font(size))
        y += size + GAP
    x = float(left)
    for head, span in heads:
        for number, line in enumerate(reversed(head)):
            place = (x + share * span / 2, top - GAP / 2 - number * (NOTE + 2))
            draw.text(place, line, fill=INK, font=_font(NOTE), anchor="md")
        x += share * span
    pitch = height / max(1, len(names))
    every = max(1, -(-HEAD // max(1, int(pitch))))  # rows lower than letters: not every one is named
    for number, name in enumerate(names):
        if number % every == 0:
            place = (left - GAP, top + pitch * (number + 0.5))
            draw.text(place, name, fill=INK, font=_font(HEAD), anchor="rm")
    canvas.paste(Image.fromarray(pixels), (left, top))
    return Picture(np.asarray(canvas), title, " ".join(filter(None, heard)), ((left, top, width, height),))


def stacked(pictures: Sequence[Picture], title: str) -> Picture:
    """One picture of several, one below the other, under a title of the file alone."""
    width = max(picture.pixels.shape[1] for picture in pictures)
    rows, places, top = [], [], 0
    for picture in pictures:
        height, own = picture.pixels.shape[:2]
        rows.append(np.pad(picture.pixels, ((0, 0), (0, width - own), (0, 0)), constant_values=255))
        places += [(x, top + y, w, h) for x, y, w, h in picture.places]
        top += height
    heard = "\n".join(f"{picture.title}. {picture.description}" for picture in pictures)
    return Picture(np.concatenate(rows), one_line(title), heard, tuple(places))


# -- Files


def png(pixels: np.ndarray, title: str, description: str = "", **fields: str) -> bytes:
    """Pixels, uint8 [height, width, 3 or 4], as a PNG file with what it shows in words, and further fields of text."""
    from PIL import Image, PngImagePlugin

    words = PngImagePlugin.PngInfo()
    for name, text in {"Title": one_line(title), "Description": description, **fields}.items():
        if text:
            words.add_text(name, text[:_MOST])
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, format="PNG", pnginfo=words, optimize=pixels.shape[-1] == 4)
        return file.getvalue()


def save_picture(path: Path, picture: Picture) -> None:
    """Write a picture to the path of a PNG file, whole or not at all; its folder is made.

    Its field ``Images`` says where the images alone are: left, top, width and height, of each part.
    """
    places = "; ".join(" ".join(map(str, place)) for place in picture.places)
    with replacing(path) as partial:
        partial.write_bytes(png(picture.pixels, picture.title, picture.description, Images=places))


def save_image(path: Path, pixels: np.ndarray, title: str) -> None:
    """Write one image to the path of a PNG file, whole or not at all.

    Its ``pixels``, uint8 [height, width, 3], are all that is seen; the title is in the file alone.
    """
    with replacing(path) as partial:
        partial.write_bytes(png(pixels, title))


def save_animation(path: Path, frames: Sequence[Picture], milliseconds: int = 80) -> None:
    """Write pictures of one size to the path of a GIF file, whole or not at all.

    It shows one of the ``frames`` after the other, each for so many ``milliseconds``, and goes on and on. Of greys
    every level is kept.
    """
    from PIL import Image

    images = [Image.fromarray(frame.pixels) for frame in frames]
    if all((frame.pixels == frame.pixels[..., :1]).all() for frame in frames):
        images = [image.convert("L") for image in images]  # a palette of all greys
    words = f"{frames[0].title}. {frames[0].description}".strip().encode("utf-8")
    first, *rest = images
    with replacing(path) as partial:
        first.save(
            partial, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0, comment=words
        )


# -- Charts


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """A figure of so many inches, of 100 pixels each."""
    from matplotlib.figure import Figure

    figure: Any = Figure  # its types know the names of layouts alone
    return figure(figsize=(width, height), dpi=100, layout=layout)


def save_figure(path: Path, figure: Any) -> None:
    """Write a figure to the path of a PNG file, whole or not at all, with its words in the file.

    It needs a title, or one over every panel. Names in its legends and along its axes that are very long are
    shortened, dollars in them are no formulas, and titles are broken into lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    over = one_line(figure.get_suptitle())
    panels = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    titles = [one_line(axes.get_title()) for axes in panels]
    if not over and not (titles and all(titles)):
        raise ValueError(f"{path.name}: a figure needs a title, or one over every panel, that says what it shows")
    words = [_sentence("Legend", _legend_texts(legend)) for legend in figure.legends]
    words += [_words_of(axes) for axes in panels]
    words += [text for text in (one_line(each.get_text()) for each in figure.texts) if text != over]
    shown = {"Title": over or "; ".join(dict.fromkeys(titles)), "Description": "\n".join(filter(None, words))[:_MOST]}
    _make_drawable(figure)
    with replacing(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial), metadata={"Software": None, **shown})


def _legend_texts(legend: Any) -> list[str]:
    title = legend.get_title().get_text()
    return [*([title] if title else []), *(text.get_text() for text in legend.get_texts())]


def _tick_names(axis: Any) -> list[str]:
    """Names that somebody gave to an axis's ticks; none where they are Matplotlib's own numbers."""
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    formatter = axis.get_major_formatter()
    if not isinstance(formatter, FixedFormatter | FuncFormatter):
        return []
    return [formatter(value, place) for place, value in enumerate(axis.get_majorticklocs())]


def _words_of(axes: Any) -> str:
    """All that is written around a panel and on it, in a line."""
    legend = axes.get_legend()
    found = [f"{one_line(axes.get_title())}." if axes.get_title() else ""]
    for name, axis in (("Across", axes.xaxis), ("Up", axes.yaxis)):
        found += [_sentence(name, [axis.get_label_text()]), _sentence(f"{name}, in order", _tick_names(axis))]
    found += [] if legend is None else [_sentence("Legend", _legend_texts(legend))]
    found.append(_sentence("On it", (text.get_text() for text in axes.texts)))
    return " ".join(filter(None, found))


def _make_drawable(figure: Any) -> None:
    """Leave no text in a figure that Matplotlib cannot draw, or takes for a formula."""
    from matplotlib.text import Text

    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        ticks = set()
        for axis in (axes.xaxis, axes.yaxis):
            # What ticks are called is set when they are drawn, where a dollar must be escaped; numbers may be formulas.
            ticks |= {id(text) for text in axis.findobj(Text) if text is not axis.label}
            if names := _tick_names(axis):
                lines = ((shortened(drawable(line)) for line in name.split("\n")) for name in names)
                axis.set_ticks(axis.get_majorticklocs(), ["\n".join(each).replace("$", r"\$") for each in lines])
        for text in axes.findobj(Text):
            if id(text) not in ticks:
                _plain(text)
        place = axes.get_subplotspec()
        rows, columns = (1, 1) if place is None else place.get_gridspec().get_geometry()
        for text, length in (
            (axes.title, width / columns),
            (axes.xaxis.label, width / columns),
            (axes.yaxis.label, height / rows),
        ):
            _break(text, 0.78 * length)
    for legend in (*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))):
        for text in legend.get_texts():
            _plain(text)
            words = " ".join(shortened(word) for word in text.get_text().split())
            text.set_text(shortened(words, 2 * LONGEST))
    for text in figure.texts:
        _break(text, 0.95 * width)


def _plain(text: Any) -> None:
    text.set_parse_math(False)
    text.set_text("\n".join(drawable(line) for line in text.get_text().split("\n")))


def _break(text: Any, width: float) -> None:
    """Break a title into lines that are not wider than so many pixels of a figure."""
    size = max(1, round(text.get_fontsize() * 100 / 72))
    text.set_text("\n".join(line for part in text.get_text().split("\n") for line in _wrapped(part, size, width)))
    text.set_parse_math(False)
