"""The small stores that are damaged and forged: every reader of bytes is met."""

from pathlib import Path

from conftest import make_manifest, make_values, write_store

# Format, codec, compression: every reader of bytes is met.
Kind = tuple[str, str, str]
KINDS: list[Kind] = [
    ("zarr", "int8", "zstd"),
    ("hdf5", "int8", "deflate"),
    ("zarr", "float16", "blosc-zstd"),
    ("hdf5", "float16", "deflate"),
    ("zarr", "float32", "none"),
    ("hdf5", "float32", "none"),
]

HOOK = "blocks.0.mlp.hook_post"


def small_store(root: Path, kind: Kind, shards: int = 2) -> None:
    """Two shards, or one of them; the second is part filled. One site, with massive rows."""
    format, codec, compression = kind
    manifest = make_manifest(
        format=format,
        codec=codec,
        compression=compression,
        rows=40,
        shard_rows=32,
        sites={HOOK: 6},
    )
    values = make_values(manifest)
    values[HOOK][::8] += 1000
    write_store(root, manifest, values, shards)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that libraries cannot take for the one they had open under its name."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
