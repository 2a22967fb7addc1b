"""Closed captions within a video stream: cc_data of ATSC A/53, as SEI of H.264 and HEVC."""

from typing import Any, Literal

from av.packet import Packet

Stream = Literal["h264", "hevc"]

MOST = 31
"""Captions of three bytes in one message, whose count has five bits."""
_HEADS: dict[Stream, bytes] = {"h264": b"\x06", "hevc": b"\x4e\x01"}
"""The heads of NAL units with SEI that precedes a picture (ITU-T H.264 7.4.1, H.265 7.4.2.2)."""
_START = b"\0\0\1"


def with_captions(packet: "Packet[Any]", captions: bytes, stream: Stream) -> "Packet[Any]":
    """Returns an encoder's packet of one picture, in Annex B, with its captions before the picture.

    FFmpeg's encoders take them from the side data of frames, which PyAV gives no way to set.
    """
    data = bytes(packet)
    place = data.find(_START)
    while 0 <= place < len(data) - len(_START):
        if _is_picture(data[place + len(_START)], stream):
            unit = _START + _HEADS[stream] + _escaped(_messages(captions))
            return _replaced(packet, data[:place] + unit + data[place:])
        place = data.find(_START, place + 1)
    return packet


def _messages(captions: bytes) -> bytes:
    """Returns the contents of a unit of SEI with the captions (ATSC A/53 part 4, 6.2.3)."""
    found = b""
    for begin in range(0, len(captions) // 3 * 3, 3 * MOST):
        some = captions[begin : min(begin + 3 * MOST, len(captions) // 3 * 3)]
        message = b"\xb5\x00\x31GA94\x03" + bytes([0x40 | len(some) // 3, 0xFF]) + some + b"\xff"
        found += bytes([4, len(message)]) + message
    return found + b"\x80"


def _escaped(data: bytes) -> bytes:
    """Returns the data with start codes within it prevented."""
    found, zeros = bytearray(), 0
    for byte in data:
        if zeros == 2 and byte <= 3:
            found.append(3)
            zeros = 0
        found.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(found)


def _is_picture(head: int, stream: Stream) -> bool:
    return 1 <= head & 31 <= 5 if stream == "h264" else (head >> 1 & 63) < 32


def _replaced(packet: "Packet[Any]", data: bytes) -> "Packet[Any]":
    changed: Packet[Any] = Packet(data)
    changed.stream, changed.time_base = packet.stream, packet.time_base
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.is_keyframe = packet.is_keyframe
    return changed
