"""TensorBoard's file of events, written so that a run that was killed goes on in it without a hole or a repetition.

tensorboardX writes in a thread, whose queue a kill empties, and begins another file at every start. Here every event is
in the file when the call returns, and what a resumed run does again is cut off first.
"""

import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jaxgen.training.files import naming

_HEADER = struct.Struct("<QI")  # length of the event and a checksum of that
_FOOTER = struct.Struct("<I")  # checksum of the event


def _masked_checksum(data: bytes) -> int:
    from tensorboardX.crc32c import crc32c

    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(path: Path) -> list[tuple[Any, int]]:
    """Read the whole events of TensorBoard's file at a path: each event, and its end in the file in bytes.

    One cut short by a kill, and what follows it, is left out.
    """
    from tensorboardX.proto.event_pb2 import Event

    data, place = path.read_bytes(), 0
    events = []
    while place + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, place)
        start, end = place + _HEADER.size, place + _HEADER.size + length + _FOOTER.size
        if checksum != _masked_checksum(data[place : place + 8]) or end > len(data):
            break
        event = data[start : start + length]
        # The checksum is slow, in Python; what a kill cuts short is the last one.
        if end == len(data) and _FOOTER.unpack_from(data, start + length)[0] != _masked_checksum(event):
            break
        events.append((Event.FromString(event), end))
        place = end
    return events


class EventFile:
    """Appends scalars and pictures to a run's file of TensorBoard events. A context manager.

    Args:
      directory: its folder, for TensorBoard's ``--logdir``.
      step: events of later steps are cut off: a resumed run writes them again.

    ``grouped`` says whether the names of its scalars have a group, as in ``train/elbo``: those of a new file do.
    """

    def __init__(self, directory: Path, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._path = directory / "events.out.tfevents.jaxgen"
        with naming(self._path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            kept = [(event, end) for event, end in read_events(self._path) if event.step <= step]
            self._file.truncate(max((end for _, end in kept), default=0))
        values = (value for event, _ in kept for value in event.summary.value)
        # Of runs before there were groups, whose curves would otherwise break off.
        self.grouped = all("/" in value.tag for value in values if value.HasField("simple_value"))
        if self._file.seek(0, 2) == 0:
            self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _append(self, event: Any) -> None:
        data = event.SerializeToString()
        length = len(data).to_bytes(8, "little")
        record = _HEADER.pack(len(data), _masked_checksum(length)) + data + _FOOTER.pack(_masked_checksum(data))
        with naming(self._path):
            while record:  # a disk that is nearly full takes a part, and refuses the next
                record = record[self._file.write(record) :]

    def _add(self, summary: Any, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._append(Event(wall_time=time.time(), step=step, summary=summary))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add a number, ``value``, by its name, after so many steps."""
        from tensorboardX.summary import scalar

        self._add(scalar(name, value), step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, uint8 [height, width, 3], by its name, after so many steps."""
        from tensorboardX.summary import image

        self._add(image(name, picture, dataformats="HWC"), step)
