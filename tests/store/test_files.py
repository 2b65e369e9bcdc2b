"""A file is there as a whole or not at all."""

import errno
from functools import partial
from pathlib import Path

import pytest
from faults import full_at_each_write

from rkstore.errors import DamagedStore, RkstoreError
from rkstore.store import files


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_appears_once_it_is_filled(tmp_path):
    target = tmp_path / "new" / "directory"
    with files.directory_aside(target) as aside:
        (aside / "file").write_bytes(b"1")
        assert not target.exists()
    assert (target / "file").read_bytes() == b"1"
    assert names(target.parent) == ["directory"]


def test_of_a_directory_that_could_not_be_filled_nothing_is_left(tmp_path):
    target = tmp_path / "directory"
    with pytest.raises(IsADirectoryError), files.directory_aside(target) as aside:
        aside.write_bytes(b"1")
    assert not names(tmp_path)


def test_a_directory_that_could_not_be_synced_in_its_place_is_not_there(tmp_path, monkeypatch):
    """Whoever was told that it failed can run the same command again."""

    def fail_once_in_place(path):
        if path == tmp_path and (tmp_path / "directory").exists():
            raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(files, "sync", fail_once_in_place)
    with pytest.raises(OSError, match="failed"), files.directory_aside(tmp_path / "directory"):
        pass
    assert not names(tmp_path)


def test_a_directory_never_replaces_one_that_has_files(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "before").write_bytes(b"0")
    with pytest.raises(OSError, match="not empty"), files.directory_aside(tmp_path / "directory"):
        pass
    assert names(tmp_path) == ["directory"]
    assert names(tmp_path / "directory") == ["before"]


def test_what_a_killed_process_left_aside_is_cleared(tmp_path):
    (tmp_path / ".directory.writing").mkdir()
    (tmp_path / ".directory.writing" / "half").write_bytes(b"1")
    with files.directory_aside(tmp_path / "directory"):
        pass
    assert not names(tmp_path / "directory")


def test_files_are_written_together_or_not_at_all(tmp_path):
    one, other = tmp_path / "new" / "one", tmp_path / "other"
    other.write_bytes(b"before")
    write = partial(files.write_together, {one: b"1", other: b"2"})
    for error in full_at_each_write(write):
        assert isinstance(error, RkstoreError)
        assert "the disk is full; what was there before is intact" in str(error)
        assert set(names(tmp_path)) <= {"new", "other"}
        if not one.exists():
            assert other.read_bytes() == b"before"
            assert not one.parent.exists() or not names(one.parent)
        assert other.read_bytes() in (b"before", b"2")
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2")
    assert names(tmp_path) == ["new", "other"]


def test_a_small_file_of_a_store_is_put_in_place_once(tmp_path, monkeypatch):
    files.put(tmp_path, "a/b", b"content")
    assert (tmp_path / "a" / "b").read_bytes() == b"content"
    assert not names(tmp_path / files.ASIDE)
    monkeypatch.setattr(files, "into_place", None)
    files.put(tmp_path, "a/b", b"content")


def test_a_file_is_never_put_where_a_link_leads(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedStore, match="reached by a symbolic link"):
        files.put(tmp_path / "store", "a/b", b"content")
    assert not names(tmp_path / "elsewhere")


def test_of_a_file_that_is_too_large_only_the_beginning_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_small(tmp_path, "file", 3) == b"1234"
    assert files.read_small(tmp_path, "file", 5) == b"12345"
    assert files.read_small(tmp_path, "absent", 5) is None
    assert files.read_small(tmp_path / "absent", "file", 5) is None


def test_a_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(RkstoreError, match=r"the disk is full.* make room and run"),
        files.writing(tmp_path),
    ):
        raise OSError(28, "No space left on device")
