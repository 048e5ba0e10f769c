"""zstd frames (RFC 8878) that repeat one byte: a few bytes on the wire decode to many megabytes."""

MAGIC = b"\x28\xb5\x2f\xfd"
RAW, RLE = 0, 1
# The largest block, in decoded bytes.
BLOCK_BYTES = 128 << 10


def frame(start, filler, count, end, window_log):
    """Returns a frame that decodes to `start`, the byte `filler` `count` times, and `end`."""
    # No checksum, no dictionary, no content size: the next byte describes the window.
    header = MAGIC + bytes([0, (window_log - 10) << 3])
    full, rest = divmod(count, BLOCK_BYTES)
    blocks = [block(RAW, len(start), start)]
    blocks += [block(RLE, BLOCK_BYTES, filler)] * full
    blocks.append(block(RLE, rest, filler))
    blocks.append(block(RAW, len(end), end, last=True))
    return header + b"".join(blocks)


def block(kind, decoded_bytes, content, last=False):
    """Returns one block: its header, of three bytes in little-endian order, and its content."""
    return (decoded_bytes << 3 | kind << 1 | last).to_bytes(3, "little") + content
