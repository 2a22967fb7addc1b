"""FFmpeg's libraries through PyAV: demuxing, decoding, encoding and muxing."""
