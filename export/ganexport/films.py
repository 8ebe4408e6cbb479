"""Films: frames as a GIF, an MP4, or a strip in one PNG. Written whole or not at all."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError, MissingDependencyError, OutputError
from ganruntime.files import file_written_atomically, write_atomically
from ganruntime.images import pil_from_image, sheet_from_images
from ganruntime.writers import require_file_name

SUFFIXES = (".gif", ".png", ".mp4")
LIMIT_BYTES = 2 << 30  # frames wait in memory: a GIF needs all of them before its first byte
_STRIP_LIMIT_PIXELS = 65_000  # in a row: more than most programs open


def require_film(
    path: Path, frames: int, height: int, width: int, channels: int | None, *, columns: int | None
) -> None:
    """Raises before anything is drawn where a film cannot be written.

    Raises:
        InputError: the suffix is not one of `SUFFIXES`, the images are no pictures, or there are too many.
        OutputError: the folder does not exist.
        MissingDependencyError: an MP4 is asked for, and imageio-ffmpeg is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: a film is not written as {suffix or 'a name without a suffix'}",
            expected="NAME.gif, NAME.mp4 or NAME.png (a strip)",
        )
    if channels not in (1, 3, 4):
        raise InputError("the generator draws no pictures", got=f"{channels} channels", expected="1, 3 or 4")
    if columns is not None and suffix != ".png":
        raise InputError("only a strip has columns", got=f"{columns} columns of {path}", remedy="-o NAME.png")
    if frames * height * width * channels > LIMIT_BYTES:
        raise InputError("too many frames for one film", got=f"{frames:,}", remedy="fewer --steps")
    if suffix == ".png" and (columns or frames) * width > _STRIP_LIMIT_PIXELS:
        raise InputError(
            "the strip is too wide",
            got=f"{(columns or frames) * width:,} pixels",
            expected=f"at most {_STRIP_LIMIT_PIXELS:,}",
            remedy="--columns breaks it into rows",
        )
    if suffix == ".mp4":
        import_ffmpeg()
    require_file_name(path)


def write_film(
    path: Path, frames: NDArray[np.uint8], *, fps: float = 25.0, scale: int = 1, columns: int | None = None
) -> None:
    """Writes frames, uint8 [n, H, W, C], as what the suffix says.

    Args:
        fps: frames a second. A GIF counts in hundredths of a second, so that 25 is exact and 30 is not.
        scale: each pixel becomes scale × scale pixels.
        columns: frames in a row of a strip; one row by default.

    Raises:
        InputError, OutputError, MissingDependencyError: as for `require_film`.
    """
    height, width, channels = frames.shape[1:]
    require_film(path, len(frames), height * scale, width * scale, channels, columns=columns)
    suffix = path.suffix.lower()
    if suffix == ".png":
        buffer = io.BytesIO()
        sheet_from_images(frames, columns or len(frames), scale=scale).save(buffer, "PNG")
        write_atomically(path, buffer.getvalue())
        return
    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    if suffix == ".gif":
        write_atomically(path, gif_from_frames(large, fps))
    else:
        _write_mp4(path, large, fps)


def gif_from_frames(frames: NDArray[np.uint8], fps: float) -> bytes:
    """A GIF that loops for ever. Grey frames keep every pixel; colours are reduced to 256 a frame."""
    pictures = [pil_from_image(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=max(20, 10 * round(100 / fps)),  # browsers slow down what is faster than 20 ms
        loop=0,
        disposal=1,
        optimize=False,
    )
    return buffer.getvalue()


def import_ffmpeg() -> ModuleType:
    """The module imageio_ffmpeg. Raises `MissingDependencyError` naming the extra."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MissingDependencyError(
            "an MP4 needs imageio-ffmpeg, which is not installed",
            got=str(error),
            remedy='pip install "ganexport[video]", or -o NAME.gif',
        ) from error
    module: ModuleType = imageio_ffmpeg
    return module


def _write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """H.264 in 4:2:0, which plays everywhere and wants even sides: an odd one is repeated once.

    The program that imageio-ffmpeg brings is started here: `imageio_ffmpeg.write_frames` is silent about an ffmpeg that
    could not write its file (0.8.1, on a full disk).
    """
    ffmpeg = import_ffmpeg()
    if frames.shape[3] == 4:
        raise InputError("an MP4 has no transparency", remedy="-o NAME.gif")
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, "edge")
    if frames.shape[3] == 1:
        frames = frames.repeat(3, axis=3)
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    film = ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", "-f", "mp4"]
    with file_written_atomically(path) as partial:
        done = subprocess.run(
            [ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *raw, *film, f"file:{partial}"],
            input=np.ascontiguousarray(frames).data.cast("B"),
            capture_output=True,
        )
        if done.returncode != 0 or not partial.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise OutputError(
                f"ffmpeg could not write {path}",
                got=said[-1][:400] if said else f"exit code {done.returncode}",
                remedy="check the disk and its free space, or -o NAME.gif",
            )
