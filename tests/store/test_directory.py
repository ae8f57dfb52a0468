"""A data directory is ours, new or refused; its format is claimed last; the mark survives."""

from pathlib import Path

import pytest

from tq.core.errors import StoreCorrupt, StoreError, StoreTooNew
from tq.store.directory import FORMAT_VERSION, DataDirectory, SyncedMark


def test_a_new_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "deep" / "data")

    holds_database = directory.prepare()

    assert not holds_database
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_a_directory_holds_a_database_once_it_is_claimed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.prepare()
    directory.rocks.mkdir()
    before = directory.prepare()

    directory.claim()

    assert not before
    assert directory.prepare()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["format", "rocks"]


def test_a_mounted_disk_is_as_good_as_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()

    assert not DataDirectory(tmp_path).prepare()


def test_files_of_others_are_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter one")

    with pytest.raises(StoreError, match=r"not ours: it holds thesis\.tex"):
        DataDirectory(tmp_path).prepare()

    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(StoreError, match="cannot be used"):
        DataDirectory(tmp_path / "data").prepare()


def test_a_later_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "format").write_text(f"tq data directory, format {FORMAT_VERSION + 1}\n")

    with pytest.raises(StoreTooNew, match=rf"format {FORMAT_VERSION + 1}, .* up to {FORMAT_VERSION}"):
        DataDirectory(tmp_path).prepare()


@pytest.mark.parametrize("line", [b"", b"\xff\xfe", b"tq data directory, format one\n", b"4\n"])
def test_a_format_that_nobody_wrote_is_damage(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "format").write_bytes(line)

    with pytest.raises(StoreCorrupt, match="format"):
        DataDirectory(tmp_path).prepare()


def test_the_free_bytes_are_those_of_the_disk(tmp_path: Path) -> None:
    assert DataDirectory(tmp_path).free_bytes() > 0


def test_a_new_mark_reads_zero_and_an_old_one_what_it_was(tmp_path: Path) -> None:
    mark = SyncedMark(tmp_path)
    before = mark.read()
    mark.advance(1 << 40)
    mark.close()

    again = SyncedMark(tmp_path)

    assert before == 0
    assert again.read() == 1 << 40
    again.close()
