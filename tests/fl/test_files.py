"""A file is whole or absent, whoever looks and whenever."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fl.errors import BadInput, CorruptFile, StorageFailed
from fl.files import read_json, sha256_file, sync_folder, writable_folder, write_bytes, write_json, write_together


def test_bytes_are_written_replaced_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"", b"\0" * 100_000):
        write_bytes(path, content, site="run")
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_write_that_fails_leaves_the_old_and_nothing_beside(tmp_path):
    taken = tmp_path / "taken"
    (taken / "inside").mkdir(parents=True)
    with pytest.raises(StorageFailed, match="taken"):
        write_bytes(taken, b"new", site="run")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(StorageFailed, match="No such file"):
        write_bytes(tmp_path / "no folder" / "a", b"new", site="run")


def test_files_that_are_written_together_appear_when_all_are_there(tmp_path):
    names = ["b", "a", "c"]
    write_together({tmp_path / name: name.encode() for name in names}, site="run")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: name for name in names}
    with pytest.raises(StorageFailed, match="no folder"):
        write_together({tmp_path / "a": b"new", tmp_path / "no folder" / "d": b"new"}, site="run")
    assert (tmp_path / "a").read_text() == "a"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, contents = tmp_path / "a", (b"a" * 300_000, b"b" * 200_000)
    write_bytes(path, contents[0], site="run")
    done = threading.Event()

    def write():
        for turn in range(30):
            write_bytes(path, contents[turn % 2], site="run")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looked = 0
    while not done.is_set():
        assert path.read_bytes() in contents
        looked += 1
    writer.join()
    assert looked


def test_a_process_killed_while_writing_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a"
    program = (
        "import sys; from pathlib import Path; from fl.files import write_bytes\n"
        "while True:\n"
        "    for letter in (b'a', b'b'):\n"
        "        write_bytes(Path(sys.argv[1]), letter * 5_000_000, site='run')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.read_bytes() in (b"a" * 5_000_000, b"b" * 5_000_000)


def test_json_is_sorted_indented_and_comes_back(tmp_path):
    path, value = tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"text": "Bäume"}}
    write_json(path, value, site="run")
    assert read_json(path) == value
    assert path.read_text().startswith('{\n  "a": {') and path.read_text().endswith("}\n")
    known = json.loads(path.read_text())
    assert path.read_text() == json.dumps(known, indent=2, sort_keys=True) + "\n"
    assert {name: known[name] for name in value} == value


def test_json_that_was_altered_is_named(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"rounds": 12, "name": "a run", "by number": {10: 1, 9: 2}}, site="run")
    assert read_json(path)["by number"] == {"10": 1, "9": 2}
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=r"a\.json"):
            read_json(path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_has_no_nan_and_the_old_file_stays(tmp_path, bad):
    path = tmp_path / "a.json"
    write_json(path, {"loss": 1.0}, site="run")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": [bad]}, site="run")
    assert read_json(path) == {"loss": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"nonsense"])
def test_what_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"a\.json: not JSON: ") as raised:
        read_json(path)
    assert raised.value.path == str(path)


def test_a_missing_file_is_missing_not_corrupt(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(300_000))
    assert sha256_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def open_descriptors():
    return len(list(Path("/dev/fd").iterdir()))


def test_syncing_a_folder_leaves_no_descriptor_open(tmp_path):
    before = open_descriptors()
    for _ in range(5):
        sync_folder(tmp_path)
    assert open_descriptors() == before


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    path = tmp_path / "new" / "deep"
    assert writable_folder(path, key="run_dir") == path
    assert list(path.iterdir()) == []
    assert writable_folder(path, key="run_dir") == path


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInput) as raised:
            writable_folder(path, key="registry_dir")
        assert raised.value.key == "registry_dir"
        assert raised.value.got == str(path)
        assert raised.value.allowed.startswith("a folder that can be written (")
