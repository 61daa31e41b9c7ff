"""Which packets of an h264 stream hold a picture that no other picture refers to: it need not be decoded.

Only what is sure counts: the headers of all the units in the packet must say so. Other codecs are left out (a frame of
hevc that none of its layer refers to may be referred to from another layer).
"""

from collections.abc import Iterator

import av

SLICES = {1, 5}
HARMLESS = {6, 9, 12}  # remarks, delimiters and filling: nothing that a later picture could need


def prefix_of(context: av.CodecContext) -> int | None:
    """Bytes that a unit's length takes before it; 0: units begin with start codes; None: not h264."""
    if context.name != "h264":
        return None
    extra = context.extradata
    return (extra[4] & 3) + 1 if extra and len(extra) > 4 and extra[0] == 1 else 0


def can_be_spared(packet: av.Packet, prefix: int | None) -> bool:
    """Whether no other picture needs this packet. prefix: as prefix_of."""
    if prefix is None or packet.is_keyframe:
        return False
    headers = [unit[0] for unit in units(bytes(packet), prefix)]
    kinds = {header & 31 for header in headers}
    references = any(header >> 5 & 3 for header in headers if header & 31 in SLICES)
    return bool(kinds & SLICES) and kinds <= SLICES | HARMLESS and not references


def units(data: bytes, prefix: int) -> Iterator[memoryview]:
    """The units of a packet, each from its header to its end or beyond. prefix: as prefix_of."""
    view = memoryview(data)
    if prefix:
        place = 0
        while place + prefix < len(data):
            yield view[place + prefix :]
            place += prefix + int.from_bytes(data[place : place + prefix], "big")
    else:
        place = data.find(b"\0\0\1")
        while 0 <= place < len(data) - 3:
            yield view[place + 3 :]
            place = data.find(b"\0\0\1", place + 3)
