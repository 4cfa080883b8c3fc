"""Hashes are DVC's own, and change exactly when what they stand for does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from rootstock.ops.fingerprint import code_hash, dvc_hash, environment, revision, state_name

FILES = {"b.txt": b"b\r\n", "a/z.bin": bytes(range(256)) * 5000, "a/ü é.txt": "ü".encode(), "a/b/empty": b"", "A": b"A"}


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_hashes_are_those_of_dvc_lock(tmp_path):
    write(tmp_path / "tree", FILES)
    write(tmp_path, {"one.bin": b"some bytes", "none.bin": b""})
    stage = {
        "cmd": "mkdir out && echo done > out/o",
        "deps": ["one.bin", "none.bin", "tree"],
        "outs": ["out"],
    }
    YAML().dump({"stages": {"make": stage}}, tmp_path / "dvc.yaml")
    dvc = [sys.executable, "-W", "ignore", "-m", "dvc"]
    settings = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "config"),
        "DVC_SYSTEM_CONFIG_DIR": str(tmp_path / "config"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
    }
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([*dvc, *command], cwd=tmp_path, env=settings, check=True, capture_output=True)
    made = YAML(typ="safe").load(tmp_path / "dvc.lock")["stages"]["make"]
    rows = [*made["deps"], *made["outs"]]
    assert {row["path"] for row in rows} == {"one.bin", "none.bin", "tree", "out"}
    assert {row["path"]: row["md5"] for row in rows} == {row["path"]: dvc_hash(tmp_path / row["path"]) for row in rows}


def test_known_hashes(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"abc")
    assert dvc_hash(tmp_path / "file") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    assert dvc_hash(tmp_path / "empty") == "d751713988987e9331980363e24189ce.dir"  # md5 of []


def test_nothing_to_hash_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing, wanted a file or folder"):
        dvc_hash(tmp_path / "none")


CODE = '''
"""Module."""
import math

# a comment
class A:
    """Doc."""
    x = 1

    def f(self, y: int = 2) -> int:
        """Doc."""
        return math.floor(y)  # why

def g():
    """Only a docstring."""
'''


def hash_of(tmp_path, *texts):
    paths = [tmp_path / f"{number}.py" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return code_hash(paths)


@pytest.mark.parametrize(
    "change",
    [
        lambda code: code.replace("# a comment", "# another\n# one"),
        lambda code: code.replace('"""Doc."""', '"""Other words."""'),
        lambda code: code.replace('"""Module."""', ""),
        lambda code: code.replace("(self, y: int = 2)", "(\n        self,\n        y: int = 2,\n    )"),
    ],
)
def test_prose_and_layout_do_not_change_the_code(tmp_path, change):
    assert change(CODE) != CODE
    assert hash_of(tmp_path, change(CODE)) == hash_of(tmp_path, CODE)


@pytest.mark.parametrize(
    "change",
    [
        lambda code: code.replace("y: int = 2", "y: int = 3"),
        lambda code: code.replace("floor", "ceil"),
        lambda code: code.replace("x = 1", "x = '1'"),
        lambda code: code.replace("def g()", "async def g()"),
        lambda code: code + "\n'a statement, not a docstring'\n",
    ],
)
def test_what_runs_does(tmp_path, change):
    assert change(CODE) != CODE
    assert hash_of(tmp_path, change(CODE)) != hash_of(tmp_path, CODE)


def test_code_cannot_move_between_files_unseen_and_their_order_does_not_matter(tmp_path):
    assert hash_of(tmp_path, "a = 1\nb = 2\n", "c = 3\n") != hash_of(tmp_path, "a = 1\n", "b = 2\nc = 3\n")
    paths = [tmp_path / "0.py", tmp_path / "1.py"]
    assert code_hash(paths) == code_hash(paths[::-1])


def test_the_same_code_elsewhere_has_the_same_hash(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, {"a.py": b"a = 1", "m/b.py": b"b = 2"})
    assert code_hash(list((tmp_path / "one").rglob("*.py"))) == code_hash(list((tmp_path / "two").rglob("*.py")))


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.integers() | st.booleans() | st.text(max_size=3), min_size=1, max_size=4)
)
def test_a_state_is_named_by_all_it_depends_on_and_by_no_order(params):
    name = state_name(params, {"data": "0"}, "c")
    assert name == state_name(dict(reversed(params.items())), {"data": "0"}, "c")
    assert len(name) == 16
    assert int(name, 16) >= 0
    others = [state_name({**params, "another": 1}, {"data": "0"}, "c"), state_name(params, {"data": "1"}, "c")]
    others.append(state_name(params, {"data": "0"}, "d"))
    assert len({name, *others}) == 4


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_revision_and_whether_the_code_is_still_that(tmp_path):
    assert revision(tmp_path) == {"git_revision": None, "git_dirty": None}
    git(tmp_path, "init")
    assert revision(tmp_path)["git_revision"] is None
    write(tmp_path, {"code.py": b"1", "dvc.lock": b"1", "reports/m.json": b"1"})
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    found = revision(tmp_path)
    assert len(found["git_revision"]) == 40
    assert found["git_dirty"] is False
    write(tmp_path, {"dvc.lock": b"2", "reports/m.json": b"2", "untracked": b""})  # a reproduction does this
    assert revision(tmp_path)["git_dirty"] is False
    write(tmp_path, {"code.py": b"2"})
    assert revision(tmp_path)["git_dirty"] is True
    assert revision(tmp_path / "reports")["git_dirty"] is True  # from a folder below, too


def test_without_git_installed_the_revision_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(tmp_path) == {"git_revision": None, "git_dirty": None}


def test_the_environment_names_what_is_installed(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_bytes(b"abc")
    found = environment(folder=tmp_path, lock=lock)
    assert found["lock_sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["mlflow"] is not None
    assert environment(folder=tmp_path, lock=Path("none"))["lock_sha256"] is None
