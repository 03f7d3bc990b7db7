"""The file endings that are a video's: those of the formats that FFmpeg writes video to and can read."""

import functools
import io

import av

# FFmpeg names a video codec for these too: pictures, covers of sound, lists of other files, what tells no size.
_NO_VIDEO = {"a64", "aiff", "dash", "fits", "flac", "hls", "ico", "image2", "mp3", "rawvideo"}
_SOUND = {".m4a", ".m4b", ".isma", ".wma", ".ra"}


@functools.cache
def video_suffixes() -> tuple[str, ...]:
    """Return the endings of files that a folder's videos have, like ".mp4", sorted."""
    found = set[str]()
    for name in av.formats_available - _NO_VIDEO:
        try:
            with av.open(io.BytesIO(), "w", format=name) as container:
                if container.default_video_codec != "none":
                    found |= _endings(name)
        except (ValueError, av.error.FFmpegError):
            # It only reads, or is a device.
            continue
    return tuple(sorted(found - _SOUND - _endings("image2")))


def _endings(format_name: str) -> set[str]:
    return {f".{ending.strip().lower()}" for ending in av.format.ContainerFormat(format_name, "w").extensions}
