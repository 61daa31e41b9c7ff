"""Opens a video file with limits and reads its frames in order. All FFmpeg errors become one-line ValueErrors.

Only the named file is read: playlists, which refer to other files or addresses, are rejected. An error says so if the
file changed while it was read. decode.py selects frames.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition

from vivit.files.paths import is_file
from vivit.memory import default_limit
from vivit.reference.values import quoted

# exceptions that PyAV raises for damaged files, in addition to FFmpegError
FAILURES = (FFmpegError, IndexError, OverflowError, UnicodeDecodeError, ZeroDivisionError)

# the accepted formats, by FFmpeg's names: none refers to another file. Playlists (hls, dash, concat, sdp, …) and image
# sequences do; FFmpeg's tty format accepts any text file
_VIDEO_FORMATS = (
    "3g2,3gp,apng,apv,asf,av1,avi,avs2,avs3,bink,cavsvideo,cine,dhav,dirac,dnxhd,dv,evc,flic,flv,gif,gxf,h261,h263,"
    "h264,hevc,hxvs,ifv,iv8,ivf,kux,live_flv,m4v,matroska,mjpeg,mjpeg_2000,mov,mp4,mpeg,mpegts,mpegvideo,mpjpeg,mxf,"
    "mxg,nc,nsv,nut,nuv,obu,ogg,pva,rm,roq,smjpeg,smk,swf,ty,vc1,vc1test,vvc,webm,webp_anim,wtv,yuv4mpegpipe"
)
_AUDIO_FORMATS = "aac,ac3,aiff,amr,au,flac,mp3,w64,wav"  # accepted to report that they have no video stream
_RESTRICTED = {"format_whitelist": f"{_VIDEO_FORMATS},{_AUDIO_FORMATS}", "protocol_whitelist": "file"}

# accept metadata in any encoding; the default since PyAV 19
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


# h264: without "strict", FFmpeg guesses the reordering delay of a stream that does not declare it, and drops frames if
# the delay grows; with it, FFmpeg assumes the maximum that the level allows
_CODEC_OPTIONS = {"h264": {"strict": "strict"}}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the resources that one file may use. Files beyond a limit are rejected.

    pixels: of one frame. A decoder holds some twenty frames of up to six bytes a pixel; in addition, a damaged header
    can make FFmpeg allocate 2 GiB for a moment, whatever the limits.
    packets: of one file, counted while reading; the declared number is ignored.
    memory: bytes of a model and its clips, or of the frames of a video, estimated before allocation.
    Raises ValueError, naming the field and the requirement.
    """

    pixels: int = 4096 * 4096
    packets: int = 1 << 24
    memory: int = field(default_factory=default_limit)

    def __post_init__(self) -> None:
        for name in ("pixels", "packets", "memory"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {quoted(value)}: it must be a positive integer")


class OpenVideo(NamedTuple):
    """A video file that is open for decoding."""

    path: str
    container: InputContainer
    stream: av.VideoStream
    limits: Limits


@contextmanager
def open_video(path: str | Path, *, limits: Limits | None = None, threads: int = 1) -> Iterator[OpenVideo]:
    """Opens the best video stream of a file. Cover images do not count as video.

    threads: of the decoder; 0: one per core.
    Raises a one-line ValueError that names the file if it is not a file, not a video, a playlist, has no video stream,
    or has frames beyond the limits. FFmpeg's errors inside the block become such errors too.
    """
    limits = limits or Limits()
    # decoders count their padding too, so FFmpeg's limit is about twice as high; check_size enforces the exact one
    options = {"max_pixels": str(2 * limits.pixels + 65_536)}
    try:
        with _container(path, options) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream) or Disposition.attached_pic in stream.disposition:
                raise ValueError(f"{path} has no video stream: it must be a video")
            if stream.codec_context is None:
                raise ValueError(f"{path} cannot be read as a video: no decoder is known for it")
            if not stream.height or not stream.width:  # FFmpeg sets sizes beyond max_pixels to 0
                raise ValueError(f"{path} has pictures without a size, or of far more than {limits.pixels} pixels")
            check_size(str(path), stream.height, stream.width, limits)
            stream.codec_context.options = {**options, **_CODEC_OPTIONS.get(stream.codec_context.name, {})}
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            yield OpenVideo(str(path), container, stream, limits)
    except FAILURES as error:
        raise read_error(path, error) from None


def _container(path: str | Path, options: dict[str, str]) -> InputContainer:
    if not is_file(path):  # also rejects pipes and devices, which may never end
        raise ValueError(f"{path} is not a file: it must be a video")
    try:
        # with the prefix, FFmpeg does not read the name as a URL, such as http:… or concat:…
        return av.open(f"file:{path}", options={**options, **_RESTRICTED}, **_ANY_METADATA)
    except ArgumentError:  # a format that is not in format_whitelist
        raise ValueError(
            f"{path} cannot be read as a video: it is a playlist, a picture, damaged, or of an unsupported format"
        ) from None


def packets(file: OpenVideo) -> Iterator[av.Packet]:
    """Yields the stream's packets from here to the end, without empty ones, which FFmpeg treats as the end."""
    for count, packet in enumerate(file.container.demux(file.stream)):
        if count >= file.limits.packets:
            raise ValueError(f"{file.path} has more than {count} packets: it must have at most limits.packets")
        if packet.size:
            yield packet


def frames(file: OpenVideo) -> Iterator[av.VideoFrame]:
    """Yields all frames of a newly opened file in display order.

    Raises ValueError, with the number of decoded frames, if the file is truncated or a frame is beyond the limits.
    """
    decoded = 0
    try:
        for packet in packets(file):
            for frame in file.stream.decode(packet):
                check_size(file.path, frame.height, frame.width, file.limits)
                decoded += 1
                yield frame
        for frame in file.stream.decode(None):
            decoded += 1
            yield frame
    except FAILURES as error:
        raise read_error(file.path, error, decoded) from None


def read_error(path: str | Path, error: BaseException, decoded: int = 0) -> ValueError:
    """Returns the one-line ValueError for an FFmpeg error after `decoded` frames."""
    reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    return ValueError(f"{path} cannot be read as a video{f' after {decoded} frames' if decoded else ''}: {reason}")


def check_size(path: str, height: int, width: int, limits: Limits) -> None:
    """Raises ValueError if a frame of this size is beyond the limits."""
    if height * width > limits.pixels:
        raise ValueError(f"{path} has pictures of {width}x{height}: they must have at most {limits.pixels} pixels")


class FileState(NamedTuple):
    """A file's identity, size and modification time, to detect changes."""

    file: tuple[int, int]  # device and inode
    size: int
    time: int


def file_state(path: str | Path) -> FileState | None:
    """Returns the state of a file, or None if it does not exist or cannot be accessed."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileState((status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns)


@contextmanager
def check_unchanged(path: str | Path, before: FileState | None = None) -> Iterator[None]:
    """Raises ValueError if the file changed during the block, also if the block raised ValueError or OSError.

    before: the state when reading began; None: the state at the start of the block. The error says how the file
    changed.
    """
    before = before or file_state(path)
    try:
        yield
    except (ValueError, OSError):
        _raise_if_changed(path, before)
        raise
    _raise_if_changed(path, before)


def _raise_if_changed(path: str | Path, before: FileState | None) -> None:
    after = file_state(path)
    if before is None or after == before:
        return
    if after is None or after.file != before.file:
        how = "was removed" if after is None else "was replaced by another file"
    elif after.size == before.size:
        how = "was changed"
    else:
        verb = "grew" if after.size > before.size else "shrank"
        how = f"{verb} from {before.size:,} to {after.size:,} bytes"
    raise ValueError(f"{path} {how} while it was read: it must be complete before it is used") from None
