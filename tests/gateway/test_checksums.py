"""Checksums against known values and a definition bit by bit; those of parts against those of the whole."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.gateway import crc
from s3fsx.gateway.checksums import ALGORITHMS, COMPOSITE, FULL, encode, of_parts, type_of, wanted
from s3fsx.gateway.errors import S3Error

POLYNOMIALS = [crc.CRC32, crc.CRC32C, crc.CRC64NVME]


def bit_by_bit(polynomial: crc.Polynomial, data: bytes) -> int:
    ones = (1 << polynomial.width) - 1
    register = ones
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ polynomial.reversed if register & 1 else register >> 1
    return register ^ ones


@pytest.mark.parametrize(
    ("polynomial", "value"),
    [(crc.CRC32, 0xCBF43926), (crc.CRC32C, 0xE3069283), (crc.CRC64NVME, 0xAE8B14860A799888)],
)
def test_the_catalogues_check_values(polynomial: crc.Polynomial, value: int) -> None:
    """Of "123456789", in the catalogue of parametrised CRC algorithms."""
    assert polynomial.update(b"123456789", 0) == value


@given(st.sampled_from(POLYNOMIALS), st.binary(max_size=700), st.binary(max_size=700))
def test_in_pieces_and_combined(polynomial: crc.Polynomial, one: bytes, other: bytes) -> None:
    whole = bit_by_bit(polynomial, one + other)
    assert polynomial.update(one + other, 0) == whole
    assert polynomial.update(other, polynomial.update(one, 0)) == whole
    assert polynomial.combine(polynomial.update(one, 0), polynomial.update(other, 0), len(other)) == whole


def test_a_large_one() -> None:
    data = bytes(range(256)) * 1200
    assert crc.CRC32.update(data, 0) == zlib.crc32(data)
    assert crc.CRC32C.update(data, 0) == bit_by_bit(crc.CRC32C, data)


@given(st.sampled_from(sorted(ALGORITHMS)), st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_of_parts(name: str, parts: list[bytes]) -> None:
    algorithm = ALGORITHMS[name]

    def of(data: bytes) -> str:
        made = algorithm.new()
        made.update(data)
        return encode(made.digest())

    told = [(of(part), len(part)) for part in parts]
    if algorithm.polynomial is not None:
        assert of_parts(algorithm, FULL, told) == of(b"".join(parts))
    digests = b"".join(base64.b64decode(text) for text, _ in told)
    assert of_parts(algorithm, COMPOSITE, told) == f"{of(digests)}-{len(parts)}"


def test_which_types_there_are() -> None:
    assert type_of(ALGORITHMS["CRC64NVME"], "") == FULL
    assert type_of(ALGORITHMS["SHA256"], "") == COMPOSITE
    assert type_of(ALGORITHMS["CRC32"], "full_object") == FULL
    for name, kind in (("SHA1", FULL), ("CRC64NVME", COMPOSITE), ("CRC32", "NONE")):
        with pytest.raises(S3Error):
            type_of(ALGORITHMS[name], kind)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-crc32": "nonsense"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "x"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-sdk-checksum-algorithm": "SHA1"},
        {"x-amz-trailer": "x-amz-something"},
        {"x-amz-sdk-checksum-algorithm": "MD4"},
    ],
)
def test_what_does_not_fit_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error):
        wanted(headers)
