"""CRCs that the standard library does not have: CRC-32C and CRC-64/NVME, and how those of parts make that of a whole.
Pure.

With awscrt installed its are used. Without it the message is one large integer, of which one half is folded onto the
other until 128 bytes are left: a fold is a product of polynomials over GF(2), made of as many shifts as the constant
has bits. Bits are reflected as these CRCs have them: bit 0 of the first byte is the highest power.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

try:
    from awscrt import checksums as native
except ImportError:
    native = None

_PIECE = 1 << 16  # bytes that are folded at once
_SMALL = 128  # bytes from where a table is faster


@dataclass(frozen=True, slots=True)
class Polynomial:
    """width in bits; reversed: bit 0 is the power width - 1."""

    width: int
    reversed: int

    @property
    def _mask(self) -> int:
        return (1 << self.width) - 1

    def multiply(self, a: int, b: int) -> int:
        product, one = 0, 1 << (self.width - 1)
        while a:
            if a & one:
                product ^= b
            a = (a << 1) & self._mask
            b = (b >> 1) ^ self.reversed if b & 1 else b >> 1
        return product

    def power(self, exponent: int) -> int:
        """x to the exponent, as a remainder."""
        return _power(self, exponent)

    def combine(self, first: int, second: int, length: int) -> int:
        """The CRC of two runs of bytes; length: of the second."""
        return self.multiply(self.power(8 * length), first) ^ second

    def update(self, data: bytes | memoryview, crc: int) -> int:
        register = crc ^ self._mask
        view = memoryview(data).cast("B")
        for at in range(0, len(view), _PIECE):
            register = self._piece(bytes(view[at : at + _PIECE]), register)
        return register ^ self._mask

    def _piece(self, data: bytes, register: int) -> int:
        if len(data) > _SMALL:
            data, register = self._folded(data, register), 0
        table = _table(self)
        for byte in data:
            register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
        return register

    def _folded(self, data: bytes, register: int) -> bytes:
        """A shorter message with the same remainder."""
        message = int.from_bytes(data, "little") ^ register
        bits = 8 * len(data)
        while bits > 8 * _SMALL:
            low = (bits - self.width + 1) // 2 & ~7
            factor = self.power(bits - low)
            head = message & ((1 << low) - 1)
            product, place = 0, 0
            while factor:
                if factor & 1:
                    product ^= head << place
                factor >>= 1
                place += 1
            message = (message >> low) ^ (product << (bits - 2 * low - self.width + 1))
            bits -= low
        return message.to_bytes(bits // 8, "little")


@functools.lru_cache(maxsize=1024)
def _power(polynomial: Polynomial, exponent: int) -> int:
    power, square = 1 << (polynomial.width - 1), 1 << (polynomial.width - 2)
    while exponent:
        if exponent & 1:
            power = polynomial.multiply(power, square)
        square = polynomial.multiply(square, square)
        exponent >>= 1
    return power


@functools.lru_cache(maxsize=4)
def _table(polynomial: Polynomial) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ polynomial.reversed if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


CRC32 = Polynomial(32, 0xEDB88320)
CRC32C = Polynomial(32, 0x82F63B78)
CRC64NVME = Polynomial(64, 0x9A6C9329AC4BC9B5)

Update = Callable[[bytes, int], int]


def crc32(data: bytes, crc: int) -> int:
    return zlib.crc32(data, crc)


def crc32c(data: bytes, crc: int) -> int:
    return int(native.crc32c(data, crc)) if native is not None else CRC32C.update(data, crc)


def crc64nvme(data: bytes, crc: int) -> int:
    return int(native.crc64nvme(data, crc)) if hasattr(native, "crc64nvme") else CRC64NVME.update(data, crc)
