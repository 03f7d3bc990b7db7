"""What scripts/fuzz does to files: random damages of their bytes, and of what text formats mean."""

import json
import random
import re
from typing import Any

_WORDS = (
    b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"null", b"true", b'""', b"[]", b"{}",
    b'"\\ud800"', b"../../etc/passwd", b"__import__('os').system('touch CODE_RAN')", b"", b"\x00", b"\xff\xfe", b"1.5",
)  # fmt: skip
_TOKEN = re.compile(rb'"[^"]*"|[-+]?\d[\d.eE+-]*|\w+')


def damage(data: bytes, suffix: str, draw: random.Random) -> bytes:
    """Return the bytes with one to three damages."""
    kinds = [_flip, _cut, _drop, _double, _noise, _insert]
    if suffix in (".json", ".toml", ".csv"):
        kinds += [_word] * 6
    if suffix == ".json":
        kinds += [_json] * 6
    if suffix == ".safetensors":
        kinds += [_header] * 6
    for _ in range(draw.randint(1, 3)):
        data = draw.choice(kinds)(data, draw)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    # Half of the time near the beginning, where headers are.
    return draw.randrange(min(len(data), 256) if draw.random() < 0.5 else len(data)) if data else 0


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 2, 16))):
        if changed:
            changed[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _drop(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + draw.choice((1, 8, 200)) :]


def _double(data: bytes, draw: random.Random) -> bytes:
    at, size = _place(data, draw), draw.choice((1, 8, 200))
    return data[: at + size] + data[at : at + size] + data[at + size :]


def _noise(data: bytes, draw: random.Random) -> bytes:
    at, size = _place(data, draw), draw.choice((4, 64, 1024))
    return data[:at] + draw.randbytes(min(size, len(data) - at)) + data[at + size :]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.choice(_WORDS) + data[at:]


def _word(data: bytes, draw: random.Random) -> bytes:
    """Put another value in the place of a number, a name or a text."""
    found = list(_TOKEN.finditer(data))
    if not found:
        return data
    chosen = draw.choice(found)
    return data[: chosen.start()] + draw.choice(_WORDS) + data[chosen.end() :]


def _json(data: bytes, draw: random.Random) -> bytes:
    """Change, remove or add a value of a JSON object."""
    try:
        value = json.loads(data)
    except ValueError:
        return data
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            return data
        key = draw.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.7:
            place = place[key]
            continue
        break
    others: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        3,
        1.5,
        2**70,
        1e308,
        "",
        "x",
        [],
        [1],
        {},
        {"a": 1},
        [[0, 9], [9, 9]],
    )
    if draw.random() < 0.2:
        del place[key]
    else:
        place[key] = draw.choice(others)
    return json.dumps(value).encode()


def _header(data: bytes, draw: random.Random) -> bytes:
    """Damage the JSON header of a safetensors file, its length put right."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data):
        return data
    header = draw.choice((_json, _word))(data[8 : 8 + size], draw)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
