"""Awkward video files for the tests of decoding, similar to what real cameras, browsers and editors write."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from videos import Coding, copy, encode, scene


def patch(path: Path, offset: int, data: bytes) -> None:
    """Overwrites bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


def _uneven(frames: int) -> list[int]:
    """Timestamps with gaps of 1 to 30 hundredths of a second."""
    return np.cumsum(np.random.default_rng(5).integers(1, 31, frames)).tolist()


def _x264(**options: str) -> Coding:
    return Coding(options={"g": "8", "bf": "3", "x264-params": "scenecut=0", **options})


def _declares_444(path: Path) -> None:
    """An AVI whose headers claim 444 frames; it has 20."""
    encode(path, scene(20), Coding("mpeg4", options={"bf": "0", "g": "8"}))
    whole = path.read_bytes()
    patch(path, whole.index(b"avih") + 8 + 16, struct.pack("<I", 444))
    patch(path, whole.index(b"strh") + 8 + 32, struct.pack("<I", 444))


def _parts_of_a_webcam(path: Path) -> None:
    """The multipart stream of a webcam, saved to a file: JPEG images, each with a text header."""
    whole = path.with_suffix(".whole.mjpeg")
    encode(whole, scene(12), Coding("mjpeg", "yuvj420p"))
    with av.open(str(whole)) as source:
        pictures = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    path.write_bytes(b"".join(head % len(picture) + picture + b"\r\n" for picture in pictures))
    whole.unlink()


def _lies_about_its_length(path: Path) -> None:
    """An MP4 whose headers declare a hundredth of its length."""
    encode(path, scene(20), _x264())
    whole = path.read_bytes()
    for box in re.finditer(b"mvhd|mdhd", whole):
        place = box.start() + 4 + 16
        patch(path, place, struct.pack(">I", struct.unpack_from(">I", whole, place)[0] // 100))


def _starts_between_keyframes(path: Path) -> None:
    """A transport stream without its first keyframe."""
    whole = path.with_suffix(".whole.ts")
    encode(whole, scene(30), _x264())
    copy(whole, path, lambda number: number >= 3)
    whole.unlink()


def _without(path: Path, suffix: str, coding: Coding, keep: Callable[[int, av.Packet], bool]) -> None:
    """Copies a stream without some of its packets; timestamps start at 0 with the first packet kept."""
    whole = path.with_suffix(f".whole.{suffix}")
    encode(whole, scene(40), coding)
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        start = next(packet.pts for count, packet in enumerate(packets) if keep(count, packet))
        for count, packet in enumerate(packets):
            if keep(count, packet):
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, stream
                container.mux(packet)
    whole.unlink()


def _loses_packets(path: Path) -> None:
    """A transport stream without two of the 188-byte packets in its middle."""
    encode(path, scene(40), _x264())
    whole, middle = path.read_bytes(), path.stat().st_size // 188 // 2 * 188
    path.write_bytes(whole[:middle] + whole[middle + 2 * 188 :])


def _breaks_off(path: Path, coding: Coding) -> None:
    """The first three fifths of a file, such as one that is still being written."""
    encode(path, scene(60), coding)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])


def _equal_stamps(path: Path) -> None:
    """Frames 6 and 7 have the same timestamp: the MP4's duration table (runs of durations 1, 1, …) is overwritten."""
    encode(path, scene(12), Coding("mjpeg", "yuvj420p", stamps=[0, 4, 8, 12, 16, 20, 24, 25, 32, 36, 40, 44]))
    whole = path.read_bytes()
    place = whole.index(b"stts") + 8
    (runs,) = struct.unpack_from(">I", whole, place)
    durations = [struct.unpack_from(">II", whole, place + 4 + 8 * run) for run in range(runs)]
    short = min(range(runs), key=lambda run: durations[run][1])
    patch(path, place + 4 + 8 * short + 4, struct.pack(">I", 0))
    patch(path, place + 4 + 8 * (short + 1) + 4, struct.pack(">I", durations[short][1] + durations[short + 1][1]))


def _picture_beside(path: Path) -> None:
    """A video and a larger cover image."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options=_x264().options)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        cover = container.add_stream("png", rate=25)
        cover.height, cover.width, cover.pix_fmt = 96, 128, "rgb24"
        cover.disposition = Disposition.attached_pic
        for stream, pictures in ((cover, scene(1, 96, 128)), (video, scene(20))):
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode(None))


# what a browser writes of a camera: no length, no index, uneven stamps
_LIVE = dict(stamps=[4 * index + index % 3 for index in range(60)], container={"live": "1"})
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

AWKWARD: dict[str, tuple[str, Callable[[Path], None]]] = {  # the name says what is awkward; suffix; writer
    "variable_frame_rate": (
        "mp4",
        lambda path: encode(path, scene(40), Coding(options={"g": "8", "bf": "2"}, stamps=_uneven(40))),
    ),
    "b_frames_in_avi": ("avi", lambda path: encode(path, scene(30), Coding("mpeg4", options={"bf": "2", "g": "9"}))),
    "h264_b_frames_in_avi": ("avi", lambda path: encode(path, scene(30), _x264())),
    "one_keyframe": ("mp4", lambda path: encode(path, scene(60), _x264(g="1000"))),
    "declares_444_frames": ("avi", _declares_444),
    "declares_a_hundredth": ("mp4", _lies_about_its_length),
    "two_video_streams": ("mkv", lambda path: encode(path, scene(10, 32, 32), _x264(), (scene(25, seed=1), _x264()))),
    "turned_90": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(90, False)))),
    "turned_180": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(180, False)))),
    "turned_270": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(-90, False)))),
    "mirrored": ("mp4", lambda path: encode(path, scene(20), Coding(rotation=(0, True)))),
    "one_frame": ("mp4", lambda path: encode(path, scene(1), _x264())),
    "odd_sizes": ("mkv", lambda path: encode(path, scene(12, 47, 63), Coding(pixels="yuv444p", options={"g": "4"}))),
    "grey": ("mkv", lambda path: encode(path, scene(12)[..., 0], Coding("ffv1", "gray"))),
    "ten_bit": ("mkv", lambda path: encode(path, scene(12), Coding("ffv1", "yuv420p10le"))),
    "ten_bit_hevc": (
        "mp4",
        lambda path: encode(
            path,
            scene(30),
            Coding("libx265", "yuv420p10le", {"x265-params": "keyint=8:bframes=3:open-gop=1:log-level=none"}),
        ),
    ),
    "open_groups_of_pictures": (
        "mkv",
        lambda path: encode(path, scene(40), _x264(**{"x264-params": "open-gop=1:scenecut=0"})),
    ),
    "no_keyframes_but_refresh": (
        "mkv",
        lambda path: encode(path, scene(60), _x264(**{"x264-params": "intra-refresh=1:scenecut=0"})),
    ),
    "refresh_in_a_transport_stream": (
        "ts",
        lambda path: encode(path, scene(60), _x264(**{"x264-params": "intra-refresh=1:scenecut=0"})),
    ),
    "transport_stream": ("ts", lambda path: encode(path, scene(40), _x264())),
    "starts_between_keyframes": ("ts", _starts_between_keyframes),
    "starts_before_zero": (
        "mp4",
        lambda path: encode(path, scene(40), Coding(options={"g": "8", "bf": "2"}, stamps=range(-44, 116, 4))),
    ),
    "hidden_frames_vp8": (
        "webm",
        lambda path: encode(
            path, scene(40), Coding("libvpx", options={"g": "16", "auto-alt-ref": "1", "lag-in-frames": "12"})
        ),
    ),
    "hidden_frames_vp9": (
        "webm",
        lambda path: encode(
            path,
            scene(40),
            Coding("libvpx-vp9", options={"g": "16", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}),
        ),
    ),
    "av1": (
        "mp4",
        lambda path: encode(path, scene(40, 64, 64), Coding("libsvtav1", options={"g": "16", "preset": "12"})),
    ),
    "keyframes_only": ("avi", lambda path: encode(path, scene(12), Coding("mjpeg", "yuvj420p"))),
    "no_stamps_at_all": ("h264", lambda path: encode(path, scene(20), _x264())),
    "old_codec": ("avi", lambda path: encode(path, scene(20), Coding("msmpeg4"))),
    "palette": ("gif", lambda path: encode(path, scene(10), Coding("gif", "rgb8"))),
    "live_vp8": (
        "webm",
        lambda path: encode(path, scene(60), Coding("libvpx", options={"g": "30", "deadline": "realtime"}, **_LIVE)),
    ),
    "live_vp9": (
        "webm",
        lambda path: encode(
            path, scene(60), Coding("libvpx-vp9", options={"g": "30", "deadline": "realtime", "cpu-used": "8"}, **_LIVE)
        ),
    ),
    "live_h264_that_breaks_off": (
        "mkv",
        lambda path: _breaks_off(path, Coding(options={"g": "20", "tune": "zerolatency"}, **_LIVE)),
    ),
    "fragments": ("mp4", lambda path: encode(path, scene(40), replace(_x264(), container=_FRAGMENTS))),
    "cut_between_keyframes": ("mp4", lambda path: _without(path, "mp4", _x264(), lambda count, _: count >= 5)),
    "starts_late": ("mkv", lambda path: encode(path, scene(20), replace(_x264(), stamps=range(2000, 2080, 4)))),
    "a_gap_in_time": (
        "mkv",
        lambda path: _without(path, "mp4", Coding("mjpeg", "yuvj420p"), lambda count, _: not 9 < count < 30),
    ),
    "frames_left_out_of_avi": (
        "avi",
        lambda path: _without(path, "mp4", Coding("mjpeg", "yuvj420p"), lambda count, _: count not in (4, 5)),
    ),
    "equal_stamps": ("mov", _equal_stamps),
    "loses_packets": ("ts", _loses_packets),
    "cover_picture": ("mp4", _picture_beside),
    "no_stamps_hevc": (
        "hevc",
        lambda path: encode(path, scene(20), Coding("libx265", options={"x265-params": "keyint=8:log-level=none"})),
    ),
    "no_stamps_mpeg2": ("m2v", lambda path: encode(path, scene(20), Coding("mpeg2video", options={"bf": "2"}))),
    "dumped_jpegs": ("mjpeg", lambda path: encode(path, scene(12), Coding("mjpeg", "yuvj420p"))),
    "parts_of_a_webcam": ("mjpg", _parts_of_a_webcam),
    "y4m": ("y4m", lambda path: encode(path, scene(12, 47, 63), Coding("rawvideo", "yuv420p"))),
    "ivf": ("ivf", lambda path: encode(path, scene(20), Coding("libvpx-vp9", options={"cpu-used": "8"}))),
    "turned_and_mirrored": ("mp4", lambda path: encode(path, scene(12), Coding(rotation=(90, True)))),
    "wide_pixels": ("mp4", lambda path: encode(path, scene(12), replace(_x264(), aspect=Fraction(4, 3)))),
    "full_range": ("mp4", lambda path: encode(path, scene(12), Coding(pixels="yuvj420p"))),
    "half_chroma": ("mkv", lambda path: encode(path, scene(12), Coding(pixels="yuv422p", options={"g": "4"}))),
    "red_green_blue": ("avi", lambda path: encode(path, scene(12), Coding("rawvideo", "bgr24"))),
    "planes_of_rgb": ("avi", lambda path: encode(path, scene(12), Coding("utvideo", "gbrp"))),
    "moving_png": ("apng", lambda path: encode(path, scene(10), Coding("apng", "rgb24"))),
    "interlaced": (
        "mpg",
        lambda path: encode(path, scene(30), Coding("mpeg2video", options={"bf": "2", "flags": "+ildct+ilme"})),
    ),
    "interlaced_h264": ("mp4", lambda path: encode(path, scene(30), _x264(**{"x264-params": "interlaced=1"}))),
    "flash": ("flv", lambda path: encode(path, scene(20), _x264())),
}
