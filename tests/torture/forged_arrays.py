"""Forgeries of the formats' own files: Zarr shards and HDF5 files."""

import functools
import io
import random
import struct

import h5py
from checksums import Files, lookup3, recorded, with_crc
from mutations import noise
from numcodecs.fletcher32 import Fletcher32


def of_zarr(files: Files, rng: random.Random) -> Files:
    """A mutated index or chunk of a Zarr shard, with its CRC right."""
    path = rng.choice([path for path in files if "/c/" in path])
    size = 20 if ".scale/" in path or ".offset/" in path else 36
    body, index = files[path][:-size], bytearray(files[path][-size:-4])
    if rng.random() < 0.3:
        at = 8 * rng.randrange(len(index) // 8)
        word = rng.choice([0, 1, 4, 2**31, 2**63, 2**64 - 1, 2**64 - 4, rng.randrange(len(body))])
        index[at : at + 8] = struct.pack("<Q", word)
        forged = body
    else:
        offset, length = struct.unpack("<QQ", index[:16])
        chunk = noise(body[offset : offset + length - 4], rng)
        forged = with_crc(chunk) + body[offset + length :]
        grown = len(forged) - len(body)
        for i in range(0, len(index), 16):
            start, long = struct.unpack("<QQ", index[i : i + 16])
            if start != 2**64 - 1:
                moved = (start, long + grown) if i == 0 else (start + grown, long)
                index[i : i + 16] = struct.pack("<QQ", *moved)
    return recorded(files | {path: forged + with_crc(bytes(index))}, rng)


# The structures of HDF5 that end in their checksum.
SIGNATURES = (b"\x89HDF\r\n\x1a\n", b"OHDR", b"OCHK", b"FADB", b"FAHD", b"BTHD", b"BTLF", b"FRHP")


@functools.cache
def sealed(raw: bytes) -> list[tuple[int, int]]:
    """Where the checksummed structures of an HDF5 file lie, their checksums left out."""
    found = []
    for signature in SIGNATURES:
        start = raw.find(signature)
        while start >= 0:
            for length in range(len(signature), min(600, len(raw) - start - 4)):
                stated = int.from_bytes(raw[start + length : start + length + 4], "little")
                if stated == lookup3(raw[start : start + length]):
                    found.append((start, length))
                    break
            start = raw.find(signature, start + 1)
    return found


def of_hdf5(files: Files, rng: random.Random) -> Files:
    """A mutated structure or chunk of an HDF5 file, with its checksum right."""
    path = rng.choice([path for path in files if path.endswith(".h5")])
    raw, kind = files[path], rng.random()
    if kind < 0.7:
        start, length = rng.choice(sealed(raw))
        block = noise(raw[start : start + length], rng)[:length].ljust(length, b"\0")
        sum_of_block = lookup3(block).to_bytes(4, "little")
        raw = raw[:start] + block + sum_of_block + raw[start + length + 4 :]
    elif kind < 0.9:
        with h5py.File(io.BytesIO(raw), "r") as file:
            chunk = file["values"].id.get_chunk_info(0)
        end = chunk.byte_offset + chunk.size
        body = raw[chunk.byte_offset : end - 4]
        body = noise(body, rng)[: len(body)].ljust(len(body), b"\0")
        raw = raw[: chunk.byte_offset] + bytes(Fletcher32().encode(body)) + raw[end:]
    else:
        raw = noise(raw, rng)
    return recorded(files | {path: raw}, rng)
