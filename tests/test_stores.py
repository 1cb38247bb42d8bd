"""What lies in a store is fetched once and is then a local file; a store that is away is waited for."""

import importlib
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from s3_server import S3Server

from monotreme.errors import InputError, RemoteError, StorageError
from monotreme.progress import console
from monotreme.storage import sha256
from monotreme.stores import check, fetched, store
from monotreme.stores.store import Store

FILES = {"train.jsonl": b'{"a": 1}\n', "deep/er/b.csv": b"a,b\n", ".hidden": b"", "c.bin": b"x" * 9}


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    """Each test is a command of its own."""
    fetched.cache_clear()


@pytest.fixture(params=["memory", "s3"])
def folder(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A URL with files under it, and what reaches them."""
    from fsspec.core import url_to_fs

    if request.param == "s3":
        request.getfixturevalue("s3")
    url = f"{request.param}://bucket/{uuid4()}"
    files, path = url_to_fs(url, use_listings_cache=False)
    for name, data in FILES.items():
        files.pipe_file(f"{path}/{name}", data)
    files.pipe_file(f"{path}-other/not.jsonl", b"beside it")
    return url, files


def put(url: str, files: Any, data: bytes) -> None:
    files.pipe_file(url.partition("://")[2] if "s3" in url else url, data)


def test_a_folder_has_the_digest_of_a_local_one(folder: tuple[str, Any], tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(data)
    found = fetched(folder[0], tmp_path / "cache")
    assert sha256(found) == sha256(tmp_path / "local")
    assert found.name == folder[0].rpartition("/")[2]


def test_a_file_keeps_its_name_and_is_fetched_once(
    folder: tuple[str, Any], tmp_path: Path, gets: list[str]
) -> None:
    for _ in range(2):
        found = fetched(f"{folder[0]}/train.jsonl", tmp_path)
        assert (found.name, found.read_bytes()) == ("train.jsonl", FILES["train.jsonl"])
        fetched.cache_clear()
    assert gets == [""]


def test_what_changed_in_the_store_is_fetched_anew(folder: tuple[str, Any], tmp_path: Path) -> None:
    url, files = f"{folder[0]}/train.jsonl", folder[1]
    old = fetched(url, tmp_path)
    put(url, files, b'{"a": 2}\n')
    assert fetched(url, tmp_path) == old, "one command reads one version"
    fetched.cache_clear()
    assert fetched(url, tmp_path).read_bytes() == b'{"a": 2}\n'
    assert old.read_bytes() == FILES["train.jsonl"]


@pytest.fixture
def gets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were fetched, in their order."""
    names: list[str] = []
    get = Store.get

    def note(self: Store, name: str, *rest: Any) -> None:
        get(self, name, *rest)
        names.append(name)

    monkeypatch.setattr(Store, "get", note)
    return names


def test_an_interrupted_fetch_goes_on(
    folder: tuple[str, Any], tmp_path: Path, gets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    get = Store.get

    def killed(self: Store, *rest: Any) -> None:
        get(self, *rest)
        if len(gets) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", killed)
        with pytest.raises(KeyboardInterrupt):
            fetched(folder[0], tmp_path)
    found = fetched(folder[0], tmp_path)
    assert sorted(gets) == sorted(FILES), "each once"
    assert {p.name for p in found.rglob("*") if p.is_file()} == {Path(n).name for n in FILES}
    assert [p for p in tmp_path.iterdir() if p != found.parent] == []


def test_nothing_there_is_one_line(folder: tuple[str, Any], tmp_path: Path) -> None:
    for url in (f"{folder[0]}/absent.jsonl", folder[0].replace("bucket", "absent")):
        for do in (check, lambda url: fetched(url, tmp_path)):
            with pytest.raises(InputError, match=f"{url} does not exist"):
                do(url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_while_it_is_fetched_is_not_taken(
    folder: tuple[str, Any], tmp_path: Path
) -> None:
    url, files = f"{folder[0]}/train.jsonl", folder[1]
    there = Store(url, "")
    entry = there.files()[""]
    put(url, files, b'{"a": 3}\n')
    with pytest.raises(RemoteError, match="was changed while it was fetched"):
        there.get("", entry, tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_leads_out_is_refused(s3: S3Server, tmp_path: Path) -> None:
    s3.files.pipe_file("bucket/data/../../escaped.txt", b"!")
    with pytest.raises(InputError, match="leads out"):
        fetched("s3://bucket/data", tmp_path / "cache")


@pytest.mark.parametrize(
    ("url", "module", "says"),
    [
        ("s3://bucket/x", "s3fs", r"pip install 'monotreme\[s3\]'"),
        ("gs://bucket/x", "gcsfs", r"pip install 'monotreme\[gcs\]'"),
        ("nothing://x", "", "Protocol not known"),
        ("file:///x", "", "without file://"),
    ],
)
def test_a_store_that_cannot_be_opened_says_what_to_do(
    url: str, module: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setattr(registry, "_registry", {})  # as in a fresh process
    monkeypatch.setattr(registry, "registry", registry._registry)
    for name in [name for name in sys.modules if module and name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    if module:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=says) as told:
        check(url)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("s3")
def test_no_rights_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError, match=r"refused .* Correct the credentials"):
        check("s3://bucket/x")


# ── a store that is away ─────────────────────────────────────────────────────────────────────────


def test_a_store_that_comes_back_is_waited_for(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    s3.files.pipe_file("bucket/a.jsonl", b"{}\n")
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(console, "quiet", False)
    s3.stop()
    back = threading.Timer(3, s3.start)
    back.start()
    assert fetched("s3://bucket/a.jsonl", tmp_path).read_bytes() == b"{}\n"
    back.join()
    assert capsys.readouterr().err.count("cannot be reached; trying for 60 s") == 1


def test_while_it_waits_it_says_how_long_still(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 4.0)
    monkeypatch.setattr(store, "NOTICE_SECONDS", 0.5)
    monkeypatch.setattr(console, "quiet", False)
    s3.stop()
    with pytest.raises(RemoteError, match="for 4 s"):
        fetched("s3://bucket/a.jsonl", tmp_path)
    told = [float(one) for one in re.findall(r"trying for (\d+) s", capsys.readouterr().err)]
    assert (told[0], len(told) > 1) == (4, True)
    assert told == sorted(told, reverse=True)
    s3.start()


def test_one_that_stays_away_ends_the_command_and_the_next_goes_on(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.files.pipe_file("bucket/data/a.jsonl", b"{}\n")
    s3.files.pipe_file("bucket/data/b.jsonl", b"{}\n")
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 1.0)
    get = Store.get

    def dies_after_one(self: Store, *rest: Any) -> None:
        get(self, *rest)
        s3.stop()

    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", dies_after_one)
        with pytest.raises(RemoteError, match=r"b.jsonl cannot be reached for 1 s .* is kept"):
            fetched("s3://bucket/data", tmp_path)
    assert time.monotonic() - started >= 1
    s3.start()
    assert sorted(p.name for p in fetched("s3://bucket/data", tmp_path).iterdir()) == [
        "a.jsonl",
        "b.jsonl",
    ]


def test_patience_is_at_least_a_minute() -> None:
    assert store.PATIENCE_SECONDS >= 60


def test_a_half_download_is_asked_for_again(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first transfer breaks off after a byte without an error."""
    s3.files.pipe_file("bucket/a.bin", b"whole")
    there = Store("s3://bucket/a.bin", "")
    entry, whole = there.files()[""], there._files.get_file
    tries = []

    def half(source: str, target: str) -> None:
        tries.append(source)
        whole(source, target)
        if len(tries) == 1:
            Path(target).write_bytes(b"w")

    monkeypatch.setattr(there._files, "get_file", half)
    there.get("", entry, tmp_path / "a.bin")
    assert ((tmp_path / "a.bin").read_bytes(), len(tries)) == (b"whole", 2)


def test_a_full_disk_keeps_what_was_fetched(s3: S3Server, small_disk: Path) -> None:
    for name in ("a", "b"):
        s3.files.pipe_file(f"bucket/data/{name}.bin", bytes(700_000))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    with pytest.raises(StorageError, match=r"cannot write .*b.bin: No space left on device"):
        fetched("s3://bucket/data", small_disk / "cache")
    kept = [path for path in small_disk.rglob("*.bin") if not path.name.startswith(".")]
    assert [path.name for path in kept] == ["a.bin"]
    ballast.unlink()
    found = fetched("s3://bucket/data", small_disk / "cache")
    assert [path.stat().st_size for path in sorted(found.iterdir())] == [700_000, 700_000]
