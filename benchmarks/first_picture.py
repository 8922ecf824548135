"""Time from the command to the first picture, with nothing compiled before."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.workers import WorkerError, cold_environment


def first_picture(timeout: float = 120.0) -> float:
    """Start ``jaxgen train vae`` in an empty folder; the seconds until a picture of its own lies there.

    Raises:
      WorkerError: it ended, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        environment = cold_environment(Path(folder))
        command = [sys.executable, "-m", "jaxgen", "train", "vae", "--workdir", str(run)]
        with (Path(folder) / "output").open("w+") as output:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder)
            try:
                while not (run / "samples").is_dir() or not any((run / "samples").iterdir()):
                    if process.poll() is not None or time.perf_counter() - start > timeout:
                        output.seek(0)
                        lines = output.read().split("\n")
                        raise WorkerError(next((line for line in reversed(lines) if line.strip()), "no output")[:300])
                    time.sleep(0.01)
                return time.perf_counter() - start
            finally:
                process.kill()
                process.wait()
