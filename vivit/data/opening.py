"""Opening a video file: its best video stream, limits on what it may claim, one-line errors, frame after frame.

Everything that can go wrong inside FFmpeg becomes a ValueError here. Nothing but the named file itself is ever read:
playlists, which name other files or addresses, are refused. Which frames are wanted is decoding.py's question.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition

from vivit.memory import usual_limit
from vivit.paths import is_file
from vivit.reference.values import quoted

# what PyAV raises beside its own errors where a file lies about itself
FAILURES = (FFmpegError, IndexError, OverflowError, UnicodeDecodeError, ZeroDivisionError)

# the kinds of files that are opened, by FFmpeg's names: each is read from its own bytes alone. Playlists (hls, dash,
# concat, sdp, …) and picture series lead to other files; FFmpeg takes any text for a video of a terminal
_VIDEO_KINDS = (
    "3g2,3gp,apng,apv,asf,av1,avi,avs2,avs3,bink,cavsvideo,cine,dhav,dirac,dnxhd,dv,evc,flic,flv,gif,gxf,h261,h263,"
    "h264,hevc,hxvs,ifv,iv8,ivf,kux,live_flv,m4v,matroska,mjpeg,mjpeg_2000,mov,mp4,mpeg,mpegts,mpegvideo,mpjpeg,mxf,"
    "mxg,nc,nsv,nut,nuv,obu,ogg,pva,rm,roq,smjpeg,smk,swf,ty,vc1,vc1test,vvc,webm,webp_anim,wtv,yuv4mpegpipe"
)
_SOUND_KINDS = "aac,ac3,aiff,amr,au,flac,mp3,w64,wav"  # opened only to say that there is no picture in them
_CONFINED = {"format_whitelist": f"{_VIDEO_KINDS},{_SOUND_KINDS}", "protocol_whitelist": "file"}

# a title in another encoding is no reason to refuse a video; PyAV 19 knows that without being told
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


# h264: where a stream does not say how far its pictures are reordered, the most that its level allows is awaited;
# otherwise pictures are lost where they are reordered further than before
_DECODING = {"h264": {"strict": "strict"}}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask of this machine before it is refused.

    pixels: of one picture. A decoder holds some twenty pictures of up to six bytes a pixel; a damaged header can make
    FFmpeg allocate 2 GiB for a moment beside them, whatever the limits.
    packets: of one file; they are counted as they are read, whatever the file declares.
    memory: bytes that a model and its clips, or the pictures of a video, may take; what surely takes more is refused.
    Raises ValueError, naming the field and the requirement.
    """

    pixels: int = 4096 * 4096
    packets: int = 1 << 24
    memory: int = field(default_factory=usual_limit)

    def __post_init__(self) -> None:
        for name in ("pixels", "packets", "memory"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {quoted(value)}: it must be a positive integer")


class Opened(NamedTuple):
    """A video file that is open for decoding."""

    path: str
    container: InputContainer
    stream: av.VideoStream
    limits: Limits


@contextmanager
def opened(path: str | Path, *, limits: Limits | None = None, threads: int = 1) -> Iterator[Opened]:
    """Opens the best video stream of a file; cover pictures are none.

    threads: of the decoder; 0: as many as there are cores.
    Raises ValueError, in one line that names the file, if it is no file, no video, has no video stream or pictures
    beyond the limits, or if it is a playlist; FFmpeg's errors inside the block become such errors too.
    """
    limits = limits or Limits()
    # decoders count the margins that they add; what is beyond the limit itself is refused by check_size
    options = {"max_pixels": str(2 * limits.pixels + 65_536)}
    try:
        with _container(path, options) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream) or Disposition.attached_pic in stream.disposition:
                raise ValueError(f"{path} has no video stream: it must be a video")
            if stream.codec_context is None:
                raise ValueError(f"{path} cannot be read as a video: no decoder is known for it")
            if not stream.height or not stream.width:  # FFmpeg forgets sizes beyond max_pixels
                raise ValueError(f"{path} has pictures of no size or of far more than {limits.pixels} pixels")
            check_size(str(path), stream.height, stream.width, limits)
            stream.codec_context.options = {**options, **_DECODING.get(stream.codec_context.name, {})}
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            yield Opened(str(path), container, stream, limits)
    except FAILURES as error:
        raise unreadable(path, error) from None


def _container(path: str | Path, options: dict[str, str]) -> InputContainer:
    if not is_file(path):  # folders, and what could be read for ever: pipes, devices
        raise ValueError(f"{path} is not a file: it must be a video")
    try:
        # the prefix keeps FFmpeg from taking the name for an address, such as http:… or concat:…
        return av.open(f"file:{path}", options={**options, **_CONFINED}, **_LENIENT)
    except ArgumentError:  # what FFmpeg says of a kind that is not listed
        raise ValueError(
            f"{path} cannot be read as a video: it is a playlist, a picture, damaged, or of a kind that is not opened"
        ) from None


def packets(file: Opened) -> Iterator[av.Packet]:
    """The packets of the stream from here to the end, without empty ones (FFmpeg takes those for the end)."""
    for count, packet in enumerate(file.container.demux(file.stream)):
        if count >= file.limits.packets:
            raise ValueError(f"{file.path} has more than {count} packets: it must have at most limits.packets")
        if packet.size:
            yield packet


def frames(file: Opened) -> Iterator[av.VideoFrame]:
    """All frames from the start of a file that was just opened, in the order in which they are shown.

    Raises ValueError, saying after how many frames, if the file breaks off or a picture is beyond the limits.
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
        raise unreadable(file.path, error, decoded) from None


def unreadable(path: str | Path, error: BaseException, decoded: int = 0) -> ValueError:
    """The one-line error for what FFmpeg raised after so many frames."""
    reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    return ValueError(f"{path} cannot be read as a video{f' after {decoded} frames' if decoded else ''}: {reason}")


def check_size(path: str, height: int, width: int, limits: Limits) -> None:
    """Raises ValueError if a picture of this size is beyond the limits."""
    if height * width > limits.pixels:
        raise ValueError(f"{path} has pictures of {width}x{height}: they must have at most {limits.pixels} pixels")
