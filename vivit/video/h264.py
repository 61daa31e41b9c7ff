"""Reads h264 headers without decoding: which frames no other frame needs, and whether a reference frame is missing.

A frame that no other frame refers to (a non-reference frame) need not be decoded. A packet counts as one only if all of
its NAL units say so. Other codecs are not handled: in hevc, a frame that its own layer does not refer to may be
referred to from another layer. Reference frames are numbered (frame_num), so a missing one leaves a gap. FFmpeg fills
such a gap silently with copies of other frames, and the result depends on what was decoded before and on the number of
threads; decode.py therefore checks for gaps.
Source: ITU-T H.264, 7.3.2 and 7.3.3 (syntax of the headers), 7.4.3 (frame_num).
"""

from collections.abc import Iterator

import av

SPS, PPS, IDR = 7, 8, 5  # types of NAL units: sequence and picture parameter sets, slice of an IDR picture
HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}  # their SPS has additional fields
HEADER_BYTES = 32  # of a slice or PPS: enough to contain the fields that are read
SPS_BYTES = 1024  # enough to contain the fields of an SPS that are read


class FrameNumbers:
    """Checks the frame numbers of consecutive packets, starting at a keyframe. Ignores codecs other than h264."""

    def __init__(self, context: av.CodecContext) -> None:
        self._prefix = length_size(context)
        self._sequences: dict[int, _SequenceParameters] = {}  # by the id of the SPS
        self._pictures: dict[int, _SequenceParameters] = {}  # by the id of the PPS that slices refer to
        self._last: int | None = None  # frame_num of the last reference frame
        for unit in _parameter_sets(context.extradata or b"") if self._prefix else ():
            self._read_parameters(unit)

    def gap_before(self, packet: av.Packet) -> bool:
        """Returns True if a reference frame is missing before this packet, or if the headers cannot be read."""
        if self._prefix is None:
            return False
        try:
            for unit in nal_units(bytes(packet), self._prefix):
                if unit[0] & 31 in SLICES:
                    return self._gap_before(unit)
                self._read_parameters(unit)
        except (ValueError, KeyError):
            return True
        return False

    def _gap_before(self, unit: memoryview) -> bool:
        bits = _BitReader(unit[1:HEADER_BYTES])
        bits.skip_codes(2)  # first_mb_in_slice, slice_type
        sequence = self._pictures[bits.read_code()]
        bits.read(2 if sequence.separate_colors else 0)
        number = bits.read(sequence.length)  # frame_num
        last = number if self._last is None or unit[0] & 31 == IDR else self._last
        if unit[0] >> 5 & 3:  # nal_ref_idc: a reference frame
            self._last = number
        return not sequence.gaps_allowed and number not in (last, (last + 1) % (1 << sequence.length))

    def _read_parameters(self, unit: memoryview) -> None:
        kind = unit[0] & 31
        if kind == SPS:
            sequence = _SequenceParameters(_BitReader(unit[1:SPS_BYTES]))
            self._sequences[sequence.number] = sequence
        elif kind == PPS:
            bits = _BitReader(unit[1:HEADER_BYTES])
            number = bits.read_code()
            self._pictures[number] = self._sequences[bits.read_code()]


class _SequenceParameters:
    """The fields of a sequence parameter set that concern frame_num: its length in bits, and whether gaps are valid."""

    def __init__(self, bits: "_BitReader") -> None:
        profile = bits.read(8)
        bits.read(16)  # constraint flags, level_idc
        self.number = bits.read_code()  # seq_parameter_set_id
        self.separate_colors = False
        if profile in HIGH_PROFILES:
            sampling = bits.read_code()  # chroma_format_idc
            self.separate_colors = sampling == 3 and bits.read(1) == 1
            bits.skip_codes(2)  # bit depths
            bits.read(1)
            if bits.read(1):  # seq_scaling_matrix_present_flag
                for index in range(12 if sampling == 3 else 8):
                    _skip_scaling(bits, 16 if index < 6 else 64)
        self.length = bits.read_code() + 4  # log2_max_frame_num_minus4
        order = bits.read_code()  # pic_order_cnt_type
        if order == 0:
            bits.read_code()
        elif order == 1:
            bits.read(1)
            bits.skip_codes(2)
            bits.skip_codes(bits.read_code())
        bits.read_code()  # max_num_ref_frames
        self.gaps_allowed = bits.read(1) == 1  # gaps_in_frame_num_value_allowed_flag


def _skip_scaling(bits: "_BitReader", size: int) -> None:
    """Skips a scaling list of `size` entries (7.3.2.1.1.1)."""
    last = following = 8
    for _ in range(size if bits.read(1) else 0):
        if following:
            code = bits.read_code()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


class _BitReader:
    """Reads the bits of a NAL unit in order. Raises ValueError past its end."""

    def __init__(self, data: memoryview) -> None:
        payload = bytes(data).replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(payload, "big"), 8 * len(payload)

    def read(self, count: int) -> int:
        """Returns the next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the unit ends")
        return self._value >> self._left & (1 << count) - 1

    def skip_codes(self, many: int) -> None:
        """Skips `many` Exp-Golomb codes."""
        for _ in range(many):
            self.read_code()

    def read_code(self) -> int:
        """Returns the next Exp-Golomb code, ue(v)."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        self.read(zeros)
        return self.read(zeros + 1) - 1


def _parameter_sets(extra: bytes) -> Iterator[memoryview]:
    """Yields the parameter sets in the extradata of a stream whose units have length prefixes (avcC)."""
    start = 5
    for mask in (31, 255):
        if start >= len(extra):
            return
        count, start = extra[start] & mask, start + 1
        for _ in range(count):
            end = start + 2 + int.from_bytes(extra[start : start + 2], "big")
            yield memoryview(extra)[start + 2 : end]
            start = end


SLICES = {1, 5}  # types of NAL units
NOT_NEEDED = {6, 9, 12}  # SEI, access unit delimiter, filler data: no later frame needs them


def length_size(context: av.CodecContext) -> int | None:
    """Returns the number of bytes of a NAL unit's length prefix; 0 for start codes; None for other codecs than h264."""
    if context.name != "h264":
        return None
    extra = context.extradata
    return (extra[4] & 3) + 1 if extra and len(extra) > 4 and extra[0] == 1 else 0


def is_nonreference(packet: av.Packet, prefix: int | None) -> bool:
    """Returns True if the packet is a non-reference frame. prefix: from length_size."""
    if prefix is None or packet.is_keyframe:
        return False
    headers = [unit[0] for unit in nal_units(bytes(packet), prefix)]
    kinds = {header & 31 for header in headers}
    references = any(header >> 5 & 3 for header in headers if header & 31 in SLICES)
    return bool(kinds & SLICES) and kinds <= SLICES | NOT_NEEDED and not references


def nal_units(data: bytes, prefix: int) -> Iterator[memoryview]:
    """Yields the NAL units of a packet, each from its header to its end or beyond. prefix: from length_size."""
    view = memoryview(data)
    if prefix:
        start = 0
        while start + prefix < len(data):
            yield view[start + prefix :]
            start += prefix + int.from_bytes(data[start : start + prefix], "big")
    else:
        start = data.find(b"\0\0\1")
        while 0 <= start < len(data) - 3:
            yield view[start + 3 :]
            start = data.find(b"\0\0\1", start + 3)
