"""Pictures in a folder or a zip archive: ``folder:PATH``. They are listed at once, and read when they are asked for."""

import csv
import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data.images import Color, Fit, Look, MixedPicturesError, look_at, open_picture, picture_to_array, spoken
from jaxgen.data.limits import check_memory
from jaxgen.data.splits import canonical, hold_out, one_line, spread, standing_for

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
SCANNED = 20_000  # pictures whose headers are looked at before any of them is read
_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")
_MOST_BYTES = 2**28  # of a picture's file, or a table, in an archive
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "name", "path")
_LABEL_COLUMNS = ("label", "class", "category")


class Listing(NamedTuple):
    """What lies in a folder or an archive, by paths with slashes: pictures, tables of labels, and what is left out."""

    pictures: list[str]
    tables: list[str]
    left_out: Counter[str]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM


def _sort(path: str, listing: Listing) -> None:
    """Put a file where it belongs."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in PICTURES:
        listing.pictures.append(path)
    elif suffix == ".csv":
        listing.tables.append(path)
    else:
        listing.left_out[f"{suffix} file" if suffix else "file without a suffix"] += 1


class _Tree:
    """A folder, with what links in it lead to."""

    def __init__(self, directory: Path) -> None:
        self.place = directory

    def listing(self) -> Listing:
        found = Listing([], [], Counter())
        self._list(str(self.place), "", found, ())
        return found

    def _list(self, directory: str, prefix: str, found: Listing, above: tuple[tuple[int, int], ...]) -> None:
        status = os.stat(directory)  # noqa: PTH116 - a Path for each takes too long
        here = (status.st_dev, status.st_ino)
        if here in above:
            found.left_out["looping link"] += 1
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    found.left_out[f"hidden {'folder' if entry.is_dir() else 'file'}"] += 1
                    continue
                try:
                    mode = entry.stat().st_mode
                except OSError:
                    found.left_out["broken link"] += 1
                    continue
                if stat.S_ISDIR(mode):
                    self._list(entry.path, f"{prefix}{entry.name}/", found, (*above, here))
                elif stat.S_ISREG(mode):
                    _sort(f"{prefix}{entry.name}", found)
                else:
                    found.left_out["special file"] += 1

    def read(self, path: str) -> Any:
        return (self.place / path).open("rb")


class _Archive:
    """A zip archive; a folder around everything in it is no class."""

    def __init__(self, path: Path, name: str) -> None:
        self.place = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ValueError(
                f"{name}: not a readable zip archive ({one_line(error)}): {path}: pack it again"
            ) from error
        members = [member.filename for member in self._zip.infolist() if not member.is_dir()]
        shown = [path for path in members if not any(map(_hidden, path.split("/")))]
        heads = {path.partition("/")[0] for path in shown}
        around = len(heads) == 1 and all(path.count("/") > 1 for path in shown)
        self._around = f"{heads.pop()}/" if around and canonical(next(iter(heads))) is None else ""

    def listing(self) -> Listing:
        found = Listing([], [], Counter())
        for member in self._zip.infolist():
            if any(map(_hidden, member.filename.rstrip("/").split("/"))):
                found.left_out["hidden file"] += not member.is_dir()
            elif not member.is_dir():
                _sort(member.filename.removeprefix(self._around), found)
        return found

    def read(self, path: str) -> Any:
        member = self._zip.getinfo(self._around + path)
        if member.file_size > _MOST_BYTES:
            raise OSError(f"it would take {member.file_size:,} bytes, at most {_MOST_BYTES:,}")
        try:
            return io.BytesIO(self._zip.read(member))
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:  # damaged, or locked
            raise OSError(one_line(error)) from error


class Folder:
    """The pictures of a split of a folder or a zip archive, in the order of their sorted paths.

    Subfolders are classes, numbered by the sorted names that the split ``train`` has; or a table ``labels.csv`` beside
    the pictures gives each file its label. Folders called train, test and val (training, testing, valid, validation,
    dev, in any case) are splits. Hidden files are skipped, links are followed.

    Args:
      place: the folder or archive.
      split: ``"train"``, ``"test"``, ``"validation"`` or ``"all"``.
      name: what to call the data set in errors.
      image_size: (height, width) in pixels that pictures are cropped and resized to. None if all are of one size.
      color: ``"grey"`` or ``"rgb"``; None if all are of one kind.
      fit: what is done to pictures of another shape: ``"crop"``, or ``"pad"`` with white.
    """

    def __init__(
        self,
        place: Path,
        split: str,
        name: str,
        image_size: tuple[int, int] | None,
        color: Color | None,
        fit: Fit = "crop",
    ) -> None:
        if not place.exists():
            raise FileNotFoundError(f"{name}: no such folder: {place}")
        self._tree: Any = _Tree(place) if place.is_dir() else _Archive(place, name)
        self._name, self._size, self._color, self._fit = name, image_size, color, fit
        found = self._tree.listing()
        self._left_out = found.left_out
        self._said: list[str] = []
        found.pictures.sort(key=lambda path: path.split("/"))
        if not found.pictures:
            raise ValueError(
                f"{name}: no pictures ({', '.join(PICTURES)}) in {place}{self._without()}: put some there, or give the "
                "folder that has them"
            )
        paths, train, prefix = self._split(found.pictures, split)
        labels, self.class_names = self._classes(paths, train, prefix, self._tables(found))
        chosen = range(len(paths))
        if self._holds_out:
            num, places = hold_out(len(paths), split, name)
            if places is not None:
                chosen = places(np.arange(num)).tolist()
                self._said.append(f"every tenth of {len(paths):,} is held out for testing")
        # As bytes of one array: a tenth of the memory of as many strings.
        self._paths = np.array([os.fsencode(paths[i]) for i in chosen])
        self._labels = None if labels is None else labels[np.asarray(chosen)]
        self.num_examples = len(self._paths)
        self.num_classes = None if self.class_names is None else len(self.class_names)
        self._looks = self._scan()
        first = self._looks[0]
        self._shape = (
            *(first.size if image_size is None else image_size),
            1 if (color or first.color) == "grey" else 3,
        )

    @property
    def notes(self) -> str:
        """What was read, made of it, and left out, in a line."""
        names = self.class_names or ()
        shown = f"{', '.join(names[:10])}{', ...' * (len(names) > 10)}"
        classes = f" of {spoken(len(names), 'class')} ({shown})" if names else ""
        made = Counter(what for look in self._looks for what in look.made)
        sizes = {look.size for look in self._looks}
        if self._size is not None and sizes != {self._size}:
            made[
                f"{'cropped' if self._fit == 'crop' else 'padded'} and resized to {self._size[0]} x {self._size[1]}"
            ] = sum(look.size != self._size for look in self._looks)
        if self._color is not None and (others := sum(look.color != self._color for look in self._looks)):
            made[f"made {'grey' if self._color == 'grey' else 'RGB'}"] = others
        counted = [f"{num:,} {what}" for what, num in sorted(made.items())]
        seen = f" (of {len(self._looks):,} looked at)" if len(self._looks) < self.num_examples and counted else ""
        parts = [f"{spoken(self.num_examples, 'picture')}{classes}", ", ".join(counted) + seen, *self._said]
        return "; ".join(part for part in [*parts, self._without().removeprefix(", ")] if part)

    def _without(self) -> str:
        """What was left out, by kind."""
        counted = [spoken(num, what) for what, num in sorted(self._left_out.items())]
        return f", left out: {', '.join(counted)}" if counted else ""

    def _split(self, pictures: list[str], split: str) -> tuple[list[str], list[str], str]:
        """(the pictures of a split, those that number the classes, the folder of the split with a slash behind it)."""
        folders = sorted({path.partition("/")[0] for path in pictures if "/" in path})
        own: dict[str, str] = {}
        for folder in folders:
            kind = canonical(folder)
            if kind is not None and own.setdefault(kind, folder) != folder:
                raise ValueError(f"{self._name}: {own[kind]}/ and {folder}/ are one split: rename one, or join them")
        if not own or ("train" not in own and len(own) < len(folders)):
            self._holds_out = True
            return pictures, pictures, ""
        wanted = standing_for(split, own, self._name)
        self._holds_out = list(own) == ["train"]
        if wanted == "validation" and canonical(split) == "test":
            self._said.append(f"{own[wanted]}/ stands for the test split, which is not there")
        beside = sum(path.partition("/")[0] not in own.values() for path in pictures)
        self._left_out += Counter({"picture beside the splits": beside})
        of = {kind: [path for path in pictures if path.startswith(f"{folder}/")] for kind, folder in own.items()}
        return of[wanted], of.get("train", of[wanted]), f"{own[wanted]}/"

    def _classes(
        self, paths: list[str], train: list[str], prefix: str, labelled: dict[str, str]
    ) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """(a label for each picture, the names of the classes) of subfolders or of a table; None without classes."""
        if labelled:
            mine, of_train = (_labels_of(each, labelled, self._name) for each in (paths, train))
        else:
            mine, of_train = (
                _folders_of(paths, prefix),
                _folders_of(train, f"{train[0].partition('/')[0]}/" if prefix else ""),
            )
        whole = bool(labelled) and all(map(str.isdecimal, of_train))
        names = sorted(set(of_train), key=(lambda label: int(label)) if whole else None)
        if set(mine) | set(names) == {""}:
            return None, None
        if "" in names or "" in mine:
            folder = next(label for label in (*names, *mine) if label)
            raise ValueError(
                f"{self._name}: pictures both in {self._tree.place / prefix} and in its subfolders (such as {folder}): "
                "subfolders are labels, so put all of them into subfolders or none"
            )
        strangers = sorted(set(mine) - set(names))
        if strangers:
            raise ValueError(
                f"{self._name}: {prefix} has {spoken(len(strangers), 'class')} that train has not, such as "
                f"{strangers[0]!r}: train has {', '.join(names[:10])}"
            )
        numbers = {label: number for number, label in enumerate(names)}
        return np.array([numbers[label] for label in mine], np.int32), tuple(names)

    def _tables(self, listing: Listing) -> dict[str, str]:
        """The label of each picture that tables name, by its path; other tables, and rows of no picture, are left out.

        A row names a file by its path from the table's folder on, or by its last part where one picture there has it.
        """
        found: dict[str, str] = {}
        pictures = set(listing.pictures)
        for table in listing.tables:
            with self._tree.read(table) as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise ValueError(f"{self._name}: {table} is too large for a table of labels: move it away")
            rows = list(csv.reader(io.StringIO(text.decode("utf-8-sig", errors="replace"))))
            header = [cell.strip().lower() for cell in rows[0]] if rows else []
            if len(header) < 2 or header[0] not in _FILE_COLUMNS:
                self._left_out[".csv file"] += 1
                continue
            known = [i for i, cell in enumerate(header) if cell in _LABEL_COLUMNS] or list(range(1, len(header)))
            if len(known) > 1:
                raise ValueError(
                    f"{self._name}: {table} has several columns of labels, {', '.join(header[i] for i in known)}: "
                    "models take one, keep it or call it 'label'"
                )
            self._said.append(f"classes are those of {table}")
            folder = table.rpartition("/")[0]
            lasts: dict[str, list[str]] = {}
            for path in pictures:
                if path.startswith(f"{folder}/" if folder else ""):
                    lasts.setdefault(path.rpartition("/")[2], []).append(path)
            for row in filter(None, rows[1:]):
                path = f"{folder}/{row[0].strip()}".lstrip("/")
                if path not in pictures:
                    same = lasts.get(path.rpartition("/")[2], [])
                    if len(same) != 1 or "/" in row[0].strip():
                        self._left_out["row beside the pictures"] += 1
                        continue
                    (path,) = same
                label = row[known[0]].strip() if len(row) > known[0] else ""
                if found.setdefault(path, label) != label:
                    raise ValueError(
                        f"{self._name}: {path} has the labels {found[path]!r} and {label!r} in {table}: keep one"
                    )
        return found

    def _scan(self) -> list[Look]:
        """Look at the headers of the pictures; one error says all that hinders them to be taken together."""
        looks: dict[str, Look] = {}
        broken = []
        for place in spread(self.num_examples, SCANNED).tolist():
            path = self._path(place)
            try:
                with self._tree.read(path) as file:
                    looks[str(self._tree.place / path)] = look_at(open_picture(file))
            except MemoryError:
                raise
            except Exception as error:  # whatever PIL's parser stumbles over, the file is at fault
                broken.append(f"cannot read {self._tree.place / path}: {one_line(error)}")
        sizes: dict[tuple[int, int], str] = {}
        colors: dict[Color, str] = {}
        for path, look in looks.items():
            if self._size is None:
                sizes.setdefault(look.size, path)
            if self._color is None:
                colors.setdefault(look.color, path)
        if broken or len(sizes) > 1 or len(colors) > 1:
            raise MixedPicturesError(self._name, broken, sizes, colors)
        return list(looks.values())

    def _path(self, place: int) -> str:
        return os.fsdecode(self._paths[place])

    def _read(self, path: str) -> tuple[np.ndarray, Color]:
        """The pixels of a picture, and the colour it had."""
        where = self._tree.place / path
        try:
            with self._tree.read(path) as file:
                picture = open_picture(file)
                found = look_at(picture).color
                return picture_to_array(picture, self._size, self._color or found, self._fit), found
        except MemoryError:
            raise
        except Exception as error:
            raise ValueError(f"{self._name}: cannot read {where}: {one_line(error)}: replace or remove it") from error

    def read(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Read some pictures; from several threads at once, if need be.

        Args:
          places: which pictures, int [n].

        Returns:
          ``image`` uint8 [n, H, W, C]; ``label`` int32 [n], the number of its class, where there are classes.

        Raises:
          ValueError: one of them is damaged or too large, or has another size or colour than the first one.
        """
        images = np.empty((len(places), *self._shape), np.uint8)
        check_memory(images.nbytes, self._name)
        first = str(self._tree.place / self._path(0))
        for image, place in zip(images, places.tolist(), strict=True):
            path = self._path(place)
            array, color = self._read(path)
            colors = {} if self._color else {self._looks[0].color: first, color: str(self._tree.place / path)}
            sizes = {self._shape[:2]: first, array.shape[:2]: str(self._tree.place / path)}
            if len(colors) > 1 or len(sizes) > 1:
                raise MixedPicturesError(self._name, [], sizes, colors)
            image[...] = array
        return {"image": images} if self._labels is None else {"image": images, "label": self._labels[places]}


def _folders_of(paths: Sequence[str], prefix: str) -> list[str]:
    """The first folder of each path after a prefix, empty where there is none."""
    return [head if tail else "" for head, _, tail in (path.removeprefix(prefix).partition("/") for path in paths)]


def _labels_of(paths: Sequence[str], labelled: dict[str, str], name: str) -> list[str]:
    """The label that tables have for each path."""
    labels = [labelled.get(path, "") for path in paths]
    missing = [path for path, label in zip(paths, labels, strict=True) if not label]
    if missing:
        raise ValueError(
            f"{name}: the table of labels has no row for {spoken(len(missing), 'picture')}, such as {missing[0]}: add "
            "the rows, or remove the pictures"
        )
    return labels
