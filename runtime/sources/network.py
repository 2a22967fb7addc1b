"""Streams from the network: RTSP, RTMP, SRT, UDP, RTP, TCP, RIST, and HLS over HTTP."""

from collections.abc import Mapping

from ..errors import SourceError
from .ffmpeg_live import StreamSource, Target
from .kind import CONNECTION, Address
from .live import LiveSource

OPTIONS = ("format", "transport", *CONNECTION)
"""The keys that an address may set."""


def open_live(address: Address, *, options: Mapping[str, str], keep: bool) -> LiveSource:
    """Open a network stream; `options` of FFmpeg go before those chosen here."""
    del keep  # a sender waits for nobody
    url = address.place
    scheme = url.partition(":")[0].lower()
    # What joins a stream in its middle has little to look at, and must not take long over it. Not
    # `nobuffer`, which throws away the pictures looked at, and with them the only one to begin with.
    chosen = {"analyzeduration": "1000000", "probesize": "1000000"}
    format = address.options.get("format")
    if format is None and scheme in ("udp", "srt", "tcp", "rist"):
        # Told, not probed: the first bytes may be anything.
        format = "mpegts"
    if format == "mpegts":
        # A sender that restarts may number its streams otherwise.
        chosen["merge_pmt_versions"] = "1"
    if scheme in ("rtsp", "rtsps"):
        transport = address.choice("transport", ("tcp", "udp", "udp_multicast", "http")) or "tcp"
        chosen["rtsp_transport"] = transport
        if options.get("rtsp_flags") == "listen":
            # FFmpeg's own default is refused by FFmpeg's own TCP.
            chosen["listen_timeout"] = "60"
        if transport != "tcp":
            chosen["reorder_queue_size"] = "16"
    elif "transport" in address.options:
        raise SourceError(f"{address.uri}: transport is an option of RTSP")
    target = Target(url=url, format=format, options=chosen | dict(options))
    return StreamSource(
        address,
        find=lambda: target,
        # A playlist's pictures come in heaps.
        paced=scheme in ("http", "https"),
    )
