"""Whether an h264 stream has lost pictures that others refer to: they are numbered.

FFmpeg fills such a gap with copies of what it has and says nothing; what comes of it depends on what else was decoded,
and by how many threads. Source: ITU-T H.264, 7.3.2 and 7.3.3 (where the numbers stand), 7.4.3 (frame_num).
"""

from collections.abc import Iterator

import av

from vivit.data.sparing import SLICES, prefix_of, units

SEQUENCE, PICTURE, IMMEDIATE_REFRESH = 7, 8, 5  # kinds of units: parameters, parameters, a picture that starts anew
HIGH = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}  # profiles whose parameters say more
HEAD = 32  # bytes: more than stands before the number in a slice
MOST = 1024  # bytes that parameters may take


class Numbering:
    """Follows the packets of a stream from a keyframe on; of other codecs it knows nothing."""

    def __init__(self, context: av.CodecContext) -> None:
        self._prefix = prefix_of(context)
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, _Sequence] = {}  # by the parameters that slices name
        self._last: int | None = None  # of the last picture that others may refer to
        for unit in _described(context.extradata or b"") if self._prefix else ():
            self._learn(unit)

    def lost_before(self, packet: av.Packet) -> bool:
        """Whether a picture is missing between this packet and the one before; also if it cannot be told."""
        if self._prefix is None:
            return False
        try:
            for unit in units(bytes(packet), self._prefix):
                if unit[0] & 31 in SLICES:
                    return self._lost_before(unit)
                self._learn(unit)
        except (ValueError, KeyError):
            return True
        return False

    def _lost_before(self, unit: memoryview) -> bool:
        bits = _Bits(unit[1:HEAD])
        bits.counts(2)  # the place in the picture, the kind of slice
        sequence = self._pictures[bits.count()]
        bits.take(2 if sequence.separate_colors else 0)
        number = bits.take(sequence.length)
        last = number if self._last is None or unit[0] & 31 == IMMEDIATE_REFRESH else self._last
        if unit[0] >> 5 & 3:
            self._last = number
        return not sequence.gaps_allowed and number not in (last, (last + 1) % (1 << sequence.length))

    def _learn(self, unit: memoryview) -> None:
        kind = unit[0] & 31
        if kind == SEQUENCE:
            sequence = _Sequence(_Bits(unit[1:MOST]))
            self._sequences[sequence.number] = sequence
        elif kind == PICTURE:
            bits = _Bits(unit[1:HEAD])
            number = bits.count()
            self._pictures[number] = self._sequences[bits.count()]


class _Sequence:
    """What the parameters of a sequence say of numbers: how many bits they take, and whether some may be left out."""

    def __init__(self, bits: "_Bits") -> None:
        profile = bits.take(8)
        bits.take(16)
        self.number = bits.count()
        self.separate_colors = False
        if profile in HIGH:
            sampling = bits.count()
            self.separate_colors = sampling == 3 and bits.take(1) == 1
            bits.counts(2)
            bits.take(1)
            if bits.take(1):
                for place in range(12 if sampling == 3 else 8):
                    _skip_scaling(bits, 16 if place < 6 else 64)
        self.length = bits.count() + 4
        order = bits.count()
        if order == 0:
            bits.count()
        elif order == 1:
            bits.take(1)
            bits.counts(2)
            bits.counts(bits.count())
        bits.count()
        self.gaps_allowed = bits.take(1) == 1


def _skip_scaling(bits: "_Bits", size: int) -> None:
    last = following = 8
    for _ in range(size if bits.take(1) else 0):
        if following:
            code = bits.count()
            following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = following or last


class _Bits:
    """Reads a unit from its first bit to its last. Raises ValueError where it ends too early."""

    def __init__(self, data: memoryview) -> None:
        payload = bytes(data).replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(payload, "big"), 8 * len(payload)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the unit ends")
        return self._value >> self._left & (1 << count) - 1

    def counts(self, many: int) -> None:
        """Passes over so many numbers."""
        for _ in range(many):
            self.count()

    def count(self) -> int:
        """The next number of those that take as many bits as they need."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        self.take(zeros)
        return self.take(zeros + 1) - 1


def _described(extra: bytes) -> Iterator[memoryview]:
    """The units of parameters in the description of a stream whose units have lengths."""
    place = 5
    for mask in (31, 255):
        if place >= len(extra):
            return
        count, place = extra[place] & mask, place + 1
        for _ in range(count):
            end = place + 2 + int.from_bytes(extra[place : place + 2], "big")
            yield memoryview(extra)[place + 2 : end]
            place = end
