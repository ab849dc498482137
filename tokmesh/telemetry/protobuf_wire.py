"""The two parts of protobuf's wire format that whoever writes messages by hand needs: varints, and fields with a length."""

import functools


@functools.lru_cache(4096)  # cumulative counts repeat from bucket to bucket, lengths from series to series
def varint(number: int) -> bytes:
    """A number from 0 on, seven bits a byte."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def nested(field: int, content: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content
