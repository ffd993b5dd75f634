"""Marian's binary files (`.bin`): named arrays one after the other, in float32 or eight bits.

Little-endian, without padding between the parts: a version, the number of items, for each item four numbers (length of
its name with a NUL, type, number of dimensions, length of its data), then all names, all shapes, zeros up to a multiple
of 256 bytes, and all data. A matrix in eight bits ("intgemm8") has one scale: its integers are round(scale * value),
and the scale itself follows them. They lie column by column, except those of embeddings.
"""

import math
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import UserError

VERSION = 1
ALIGNMENT = 256  # bytes
LARGEST = 127  # integers are symmetric: -127 to 127
_HEADER = struct.Struct("<4Q")
_MOST_ITEMS, _MOST_DIMENSIONS = 1 << 20, 8

Array = np.ndarray[Any, Any]


class Type(IntEnum):
    """What an item holds, by Marian's numbers."""

    INT8 = 0x0101  # the configuration's text
    FLOAT32 = 0x0404
    INTGEMM8 = 0x4101


@dataclass(frozen=True)
class Item:
    """A named array: `data` is as it stands in the file, `shape` is that of the values."""

    name: str
    type: Type
    shape: tuple[int, ...]
    data: bytes | memoryview

    @property
    def values(self) -> Array:
        """The values: integers of eight bits are scaled back to float32; a text is int8."""
        size = math.prod(self.shape)
        if self.type == Type.INT8:
            return np.frombuffer(self.data, np.int8, size).reshape(self.shape)
        if self.type == Type.FLOAT32:
            return np.frombuffer(self.data, "<f4", size).astype(np.float32).reshape(self.shape)
        integers = np.frombuffer(self.data, np.int8, size)
        matrix = integers.reshape(self.shape) if is_embedding(self.name) else integers.reshape(self.shape[::-1]).T
        return np.ascontiguousarray(matrix, np.float32) / np.float32(self.scale)

    @property
    def scale(self) -> float:
        """Of a matrix in eight bits: what its values were multiplied by."""
        if self.type != Type.INTGEMM8:
            raise ValueError(f"{self.name} is not in eight bits")
        return float(np.frombuffer(self.data, "<f4", 1, math.prod(self.shape))[0])


def is_quantized(name: str) -> bool:
    """Whether Marian has a parameter of this name in eight bits: embeddings, and what names like …_W or …_Wq call."""
    return is_embedding(name) or ("_W" in name and len(name) - name.find("_W") in (2, 3))


def is_embedding(name: str) -> bool:
    return "Wemb" in name


def float32_item(name: str, values: Array) -> Item:
    return Item(name, Type.FLOAT32, values.shape, _padded(np.ascontiguousarray(values, "<f4").tobytes()))


def int8_item(name: str, values: Array) -> Item:
    """A matrix in eight bits, with the scale that takes its largest absolute value to 127."""
    largest = float(max(values.max(), -values.min()))
    scale = np.float32(LARGEST / largest) if largest else np.float32(1)
    product = np.multiply(values, scale, dtype=np.float32)
    integers = np.rint(product, out=product).astype(np.int8)
    data = np.ascontiguousarray(integers if is_embedding(name) else integers.T)
    return Item(name, Type.INTGEMM8, values.shape, _padded(data.tobytes() + np.array(scale, "<f4").tobytes()))


def text_item(name: str, text: str) -> Item:
    data = text.encode("utf-8") + b"\0"
    return Item(name, Type.INT8, (len(data),), data)


def write(path: str | Path, items: Sequence[Item]) -> None:
    """Write items in their order, under a temporary name first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [item.name.encode("utf-8") + b"\0" for item in items]
    head = [struct.pack("<2Q", VERSION, len(items))]
    for item, name in zip(items, names, strict=True):
        head.append(_HEADER.pack(len(name), item.type, len(item.shape), len(item.data)))
    head += names
    head += [struct.pack(f"<{len(item.shape)}i", *item.shape) for item in items]
    position = sum(map(len, head)) + 8  # with the length of the padding
    padding = ALIGNMENT - position % ALIGNMENT
    head += [struct.pack("<Q", padding), bytes(padding)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([*head, *(item.data for item in items)])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> list[Item]:
    """The items of a file, in its order. Raises UserError when it is no such file, not whole, or of other types."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    try:
        return list(_items(content))
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not a whole binary file of Marian: {error}") from error


def _items(content: bytes) -> Iterable[Item]:
    version, count = struct.unpack_from("<2Q", content)
    if version != VERSION:
        raise ValueError(f"it begins with version {version}, not {VERSION}")
    if count > _MOST_ITEMS:
        raise ValueError(f"it promises {count} items")
    place = 16
    headers = [_HEADER.unpack_from(content, place + number * _HEADER.size) for number in range(count)]
    place += count * _HEADER.size
    names = []
    for length, *_ in headers:
        names.append(content[place : place + length].removesuffix(b"\0").decode("utf-8"))
        place += length
    shapes = []
    for _, _, dimensions, _ in headers:
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"it promises an array of {dimensions} dimensions")
        shapes.append(struct.unpack_from(f"<{dimensions}i", content, place))
        place += 4 * dimensions
    place += 8 + struct.unpack_from("<Q", content, place)[0]
    for name, shape, (_, number, _, length) in zip(names, shapes, headers, strict=True):
        if number not in list(Type):
            raise ValueError(f"{name} has the type {number:#06x}, which is not supported (float32 and intgemm8 are)")
        item = Item(name, Type(number), shape, memoryview(content)[place : place + length])
        if len(item.data) < length or min(shape, default=1) < 0 or _least_bytes(item) > length:
            raise ValueError(f"the data of {name} is cut short")
        yield item
        place += length


def _least_bytes(item: Item) -> int:
    size = math.prod(item.shape)
    return {Type.INT8: size, Type.FLOAT32: 4 * size, Type.INTGEMM8: size + 4}[item.type]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
