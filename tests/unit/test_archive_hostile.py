"""Archives made to harm: each class is refused by its name, and nothing is written outside the folder it was to go into."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.archive import inspect
from ansible.module_utils.juju_dr.archive_tar import Limits, link_stays
from ansible.module_utils.juju_dr.codec import Gzip, Zstd
from ansible.module_utils.juju_dr.verdict import judge

from lab.small_archive import END, foreign, ours, pax, raw

PREFIX = "juju-backup/"
BLOCK = tarfile.BLOCKSIZE
# Where the crooked members stand.
PLACES: dict[str, Callable[[Path, bytes], Path]] = {
    "outer, of others": lambda path, bad: foreign(path, outer=bad),
    "outer, ours": lambda path, bad: ours(path, Gzip(), outer=bad),
    "root.tar, of others": lambda path, bad: foreign(path, root=bad),
    "root.tar, ours in zstd": lambda path, bad: ours(path, Zstd(), root=bad),
}


def link(name: str, target: str, **fields: Any) -> bytes:
    return raw(name, type=tarfile.SYMTYPE, linkname=target, **fields)


def broken(header: bytes, at: int, value: bytes) -> bytes:
    return header[:at] + value + header[at + len(value) :]


def names(p: str) -> dict[str, bytes]:
    bad = [
        "/etc/cron.d/x",
        "//etc/x",
        "/" + p + "x",
        "../x",
        p + "../x",
        p + "../../../../etc/x",
        p + "a/../../../x",
        p + "x/..",
    ]
    return {name: raw(name, b"evil") for name in [*bad, p + "x/", "./../" + p + "x", "..", p + "a/./../b"]}


def elsewhere(p: str) -> dict[str, bytes]:
    """In the archive itself, nothing may be beside juju-backup/."""
    return {name: raw(name, b"evil") for name in ("x", "other/x", "juju-backup2/x", "./x", "JUJU-BACKUP/x")}


def links(p: str) -> dict[str, bytes]:
    targets = [
        "/etc/passwd",
        "/root/.ssh/authorized_keys",
        "/",
        "..",
        "../" * 20 + "etc/shadow",
        "",
        "/proc/self/mem",
        "/tmp/x",
    ]
    targets += [
        "/var/lib/jujux/y",
        "/var/lib/dpkg/info",
        "/var/lib/juju/../../../etc/passwd",
        "/home/other/.ssh/id",
        "/dev/sda",
    ]
    made = {target: link("var/lib/juju/l", target) for target in targets}
    made["long"] = raw("././@LongLink", b"/etc/" + b"x" * 200 + b"\0", type=tarfile.GNUTYPE_LONGLINK) + link(
        "var/lib/juju/l", "y"
    )
    made["pax"] = pax({"linkpath": "/etc/passwd"}) + link("var/lib/juju/l", "tools")
    made["home"] = link("home/ubuntu/.ssh/l", "../../other/.ssh/id")
    made["too long"] = pax({"linkpath": "a/" * 3000}) + link("var/lib/juju/l", "tools")
    return made


def links_outside_root(p: str) -> dict[str, bytes]:
    return {target: link(p + "l", target) for target in ("/etc/passwd", "metadata.json", "../x", ".", "dump")}


def through(p: str) -> dict[str, bytes]:
    made = {
        "a file": raw(p + "f", b"x") + raw(p + "f/evil", b"x"),
        "a file, deep": raw(p + "f", b"x") + raw(p + "f/a/b/c", b"x"),
        "a file, by a folder": raw(p + "f", b"x") + raw(p + "f/d", type=tarfile.DIRTYPE),
        "an old file": raw(p + "metadata.json/x", b"x") if p else raw("var/lib/juju/agents/machine-0/agent.conf/x", b"x"),
    }
    if not p:
        tools = link("var/lib/juju/l", "/var/lib/juju/tools")
        made.update(
            {
                "a link": tools + raw("var/lib/juju/l/evil", b"x"),
                "a link, deep": tools + raw("var/lib/juju/l/a/b/evil", b"x"),
                "a link, by a link": tools + link("var/lib/juju/l/evil", "x"),
                "a link, by a folder": tools + raw("var/lib/juju/l/d", type=tarfile.DIRTYPE),
            }
        )
    return made


def kinds(p: str) -> dict[str, bytes]:
    made = {
        f"type {kind!r}": raw(p + "x", type=kind, linkname=p + "metadata.json")
        for kind in (b"1", b"3", b"4", b"6", b"7", b"D", b"M", b"N", b"V", b"A", b"E", b"I", b"Z", b"g", b"9", b"\xff", b"X")
    }
    made["a folder with content"] = broken_size(raw(p + "d", type=tarfile.DIRTYPE), 512) + bytes(512)
    return made


def broken_size(header: bytes, size: int) -> bytes:
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    kind, info.type = info.type, tarfile.REGTYPE
    info.size = size
    made = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    made[156:157] = kind
    total = sum(made[:148]) + 8 * 32 + sum(made[156:])
    made[148:156] = f"{total:06o}\0 ".encode()
    return bytes(made)


def duplicates(p: str) -> dict[str, bytes]:
    made = {
        "a file": raw(p + "x", b"1") + raw(p + "x", b"2"),
        "a file with dots": raw(p + "x", b"1") + raw("./" + p + "./x", b"2"),
        "a file with slashes": raw(p + "a/x", b"1") + raw(p + "a//x", b"2"),
        "a folder as a file": raw(p + "d", type=tarfile.DIRTYPE) + raw(p + "d", b"2"),
        "a file as a folder": raw(p + "d", b"2") + raw(p + "d", type=tarfile.DIRTYPE),
        "a folder above as a file": raw(p + "d/x", b"1") + raw(p + "d", b"2"),
        "by a long name": raw(p + "x", b"1") + raw("././@LongLink", (p + "x").encode() + b"\0", type=b"L") + raw("y", b"2"),
        "by PAX": raw(p + "x", b"1") + pax({"path": p + "x"}) + raw(p + "y", b"2"),
        "two long names for one": raw("././@LongLink", b"a\0", type=b"L") + raw("././@LongLink", b"b\0", type=b"L") + raw("y"),
    }
    if not p:
        old = link("var/lib/juju/x", "y")
        made["a link"] = old + raw("var/lib/juju/x", b"1")
        made["links"] = old + link("var/lib/juju/x", "z")
        made["agent.conf"] = raw("var/lib/juju/agents/machine-0/agent.conf", b"evil")
    else:
        made["metadata.json"] = raw(p + "metadata.json", b"{}")
        made["root.tar"] = raw(p + "root.tar", END)
    return made


def set_ids(p: str) -> dict[str, bytes]:
    return {oct(mode): raw(p + "x", b"#!", mode=mode) for mode in (0o4755, 0o2755, 0o6755, 0o4000, 0o2000, 0o7777, 0o4600)}


def long_names(p: str) -> dict[str, bytes]:
    made = {f"{size}": raw(p + "x" * size, b"1") for size in (256, 300, 1000, 5000)}
    made["deep"] = raw(p + "a/" * 2100 + "x", b"1")
    made["accents"] = raw(p + "é" * 130, b"1")
    made["of PAX"] = pax({"path": p + "x" * 400}) + raw(p + "y", b"1")
    made["beyond all"] = raw("././@LongLink", b"x" * 70_000, type=b"L") + raw(p + "y", b"1")
    made["records beyond all"] = pax({"path": "x" * 70_000}) + raw(p + "y", b"1")
    return made


def sparse(p: str) -> dict[str, bytes]:
    made = {"of GNU": raw(p + "x", bytes(512), type=tarfile.GNUTYPE_SPARSE)}
    for key, value in {"major": "1", "map": "0,1", "size": str(2**40), "name": p + "x", "numblocks": "1"}.items():
        made[f"PAX {key}"] = pax({f"GNU.sparse.{key}": value}) + raw(p + "x", bytes(512))
    return made


def sizes(p: str) -> dict[str, bytes]:
    made = {str(size): broken_size(raw(p + "x"), size) for size in (2**43, 2**50, 2**62, -1, -(2**40))}
    made["PAX"] = pax({"size": str(2**50)}) + raw(p + "x")
    made["PAX below nothing"] = pax({"size": "-512"}) + raw(p + "x")
    if p:
        made["a huge small file"] = raw(p + "x.json", bytes(4 * 2**20 + 1))
    else:
        made["a huge agent.conf"] = raw("var/lib/juju/agents/machine-1/agent.conf", bytes(4 * 2**20 + 1))
    return made


def damage(p: str) -> dict[str, bytes]:
    good = raw(p + "x", b"1")
    return {
        "a wrong checksum": broken(good, 148, b"000000"),
        "no header": b"\1" * BLOCK,
        "letters for a size": broken(good, 124, b"zzzzzzzzzzz"),
        "a byte behind a file": broken(good, BLOCK + 100, b"x"),
        "a byte behind a long name": broken(raw("l", b"x\0", type=b"L"), BLOCK + 9, b"x") + good,
        "records without an end": raw("p", b"12 path=abcd", type=b"x") + good,
        "records without a length": raw("p", b"path=abcdefg\n", type=b"x") + good,
        "records of length 0": raw("p", b"0 path=abcdefg\n", type=b"x") + good,
        "records without a value": raw("p", b"8 path\n", type=b"x") + good,
        "a record twice": raw("p", b"10 path=a\n10 path=b\n", type=b"x") + good,
        "a size that is none": pax({"size": "x"}) + good,
        "a time that is none": pax({"mtime": "inf"}) + good,
        "an end in between": END + good,
        "half an end": bytes(BLOCK) + good,
    }


CLASSES: dict[str, tuple[Callable[[str], dict[str, bytes]], str, str]] = {
    "unsafe-name": (names, "unsafe-name", "both"),
    "elsewhere": (elsewhere, "unsafe-name", "outer"),
    "unsafe-link": (links, "unsafe-link", "root"),
    "links outside root.tar": (links_outside_root, "unsafe-kind", "outer"),
    "unsafe-path": (through, "unsafe-path", "both"),
    "unsafe-kind": (kinds, "unsafe-kind", "both"),
    "duplicate": (duplicates, "duplicate", "both"),
    "set-id": (set_ids, "set-id", "both"),
    "long-name": (long_names, "long-name", "both"),
    "sparse": (sparse, "sparse", "both"),
    "too-large": (sizes, "too-large", "both"),
    "damaged": (damage, "damaged", "both"),
}


def hostile(folder: Path) -> dict[str, tuple[Path, str]]:
    """Archives by what is wrong with them, and the cause each must be refused for."""
    made: dict[str, tuple[Path, str]] = {}
    for name, (samples, code, where) in CLASSES.items():
        for place, make in PLACES.items():
            outer = place.startswith("outer")
            if where not in ("both", "outer" if outer else "root"):
                continue
            for what, bad in samples(PREFIX if outer else "").items():
                path = make(folder / f"{len(made)}", bad)
                made[f"{name}: {what!r} ({place})"] = (path, code)
    return made


# In a process of its own: tells every write that Python makes, and whatever it makes of the archives.
WATCHED = """
import json, os, sys
import ansible.module_utils
ansible.module_utils.__path__.append(sys.argv[1])
from ansible.module_utils.juju_dr.archive import unpack
from ansible.module_utils.juju_dr.verdict import Refused, judge
allowed, outside = os.path.realpath(sys.argv[2]), []
WRITES = {"os.mkdir", "os.symlink", "os.link", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.utime",
          "os.truncate", "shutil.rmtree", "shutil.chown", "shutil.copyfile", "shutil.move", "tempfile.mkstemp",
          "tempfile.mkdtemp", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or isinstance(path, int):
            return
    elif event in WRITES:
        path = arguments[1] if event in ("os.symlink", "os.link") else arguments[0]
    else:
        return
    if isinstance(path, int):
        return
    place = os.fsdecode(path)
    if not os.path.isabs(place) and event in ("os.remove", "os.rmdir"):
        # rmtree works below open folders.
        return
    real = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
    if real != allowed and not real.startswith(allowed + os.sep):
        outside.append([event, place])
sys.addaudithook(watch)
found = {}
for path in json.load(sys.stdin):
    verdict = judge(path)
    try:
        unpack(path, allowed, "")
        code = "unpacked"
    except Refused as error:
        code = error.code
    found[path] = [verdict.code, code, os.path.lexists(allowed)]
print(json.dumps({"found": found, "outside": outside}))
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[Path, str]], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    archives = hostile(folder)
    good = foreign(folder / "good")
    (folder / "around").mkdir()
    (folder / "around" / "canary").write_text("sings", encoding="utf-8")
    code = Path(inspect.__code__.co_filename).parents[1]
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, str(code), str(folder / "around" / "out")],
        input=json.dumps([str(path) for path, _ in archives.values()] + [str(good)]),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    result["good"] = result["found"].pop(str(good))
    result["around"] = sorted(p.name for p in (folder / "around").iterdir())
    result["canary"] = (folder / "around" / "canary").read_text(encoding="utf-8")
    return archives, result


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_class_is_refused_for_what_it_is(name: str, watched: Any) -> None:
    archives, result = watched
    wrong = {}
    for what, (path, code) in archives.items():
        if what.startswith(name + ": ") and result["found"][str(path)] != [code, code, False]:
            wrong[what] = result["found"][str(path)]
    assert wrong == {}
    for path, code in (archives[one] for one in archives if one.startswith(name + ": ") and "of others" in one):
        assert judge(str(path)).code == code, path


def test_there_are_enough_of_them(watched: Any) -> None:
    assert len(watched[0]) >= 300


def test_nothing_was_written_outside(watched: Any) -> None:
    _, result = watched
    assert result["outside"] == []
    assert (result["around"], result["canary"]) == (["canary", "out"], "sings")
    # The one that is sound was unpacked last: the watcher saw real work.
    assert result["good"] == ["", "unpacked", True]


@pytest.mark.parametrize("place", ["outer", "root"])
def test_a_bomb_is_noticed_before_it_has_gone_off(place: str, tmp_path: Path) -> None:
    bad = raw(PREFIX + "dump/x" if place == "outer" else "x", bytes(80 * 2**20))
    path = foreign(tmp_path / "x.tar.gz", **{place: bad})
    assert judge(str(path)).code == "bomb"
    assert judge(str(path), limits=Limits(ratio=2000)).code == ""
    assert judge(str(path), limits=Limits(total_bytes=10 * 2**20)).code == "too-large"
    assert judge(str(ours(tmp_path / "y", Gzip(), root=raw("x", bytes(2**20)))), limits=Limits(2**20)).code == "too-large"


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.tar.gz", root=b"".join(raw(f"x{number}") for number in range(50)))
    assert judge(str(path), limits=Limits(files=30)).code == "too-large"
    assert judge(str(path), limits=Limits(files=100)).code == ""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (b"", "cut"),
        (bytes(BLOCK), "cut"),
        (END + b"x", "damaged"),
        (END + bytes(BLOCK) + b"\1", "damaged"),
        (bytes(700), "cut"),
    ],
)
def test_a_tar_ends_with_its_end(end: bytes, code: str, tmp_path: Path) -> None:
    assert judge(str(foreign(tmp_path / "x", end=end))).code == code
    assert judge(str(foreign(tmp_path / "y", root_end=end))).code == code
    assert judge(str(foreign(tmp_path / "z", end=END + bytes(20 * BLOCK)))).ok


def test_what_is_well_is_taken(tmp_path: Path) -> None:
    """Nothing that a real host or another tar makes is refused."""
    root = (
        raw("var/lib/juju/tools/", type=tarfile.DIRTYPE, mode=0o2755)
        + raw("var/lib/juju/tools", type=tarfile.DIRTYPE)
        + link("var/lib/juju/tools/machine-0", "3.6.26.1-ubuntu-amd64")
        + link("var/lib/juju/tools/unit-x", "/var/lib/juju/tools/3.6.26.1-ubuntu-amd64")
        + link("etc/systemd/system/x.service", "/lib/systemd/system/x.service")
        + link("etc/systemd/system/masked.service", "/dev/null")
        + link("home/ubuntu/.ssh/config", "../.config/ssh")
        + pax({"path": "var/log/juju/" + "x" * 200, "mtime": "1.5", "uname": "syslog", "comment": "x"})
        + raw("short", b"1")
        + raw("var/log/juju/" + "y" * 200, b"1")
        + raw("odd\udcff", b"")
    )
    path = foreign(tmp_path / "x", outer=raw(PREFIX + "dump", type=tarfile.DIRTYPE, mode=0o700), root=root)
    verdict = judge(str(path))
    assert verdict.ok, verdict


@pytest.mark.parametrize(
    ("name", "target", "stays"),
    [
        ("var/lib/juju/tools/unit-x", "/var/lib/juju/tools/v", True),
        ("var/lib/juju/a", "b", True),
        ("srv/juju/tools/machine-0", "/srv/juju/tools/v", True),
        ("srv/juju/tools/machine-0", "/srv/other", False),
        ("etc/systemd/system/x", "/usr/lib/systemd/system/x", True),
        ("var/lib/juju/agents/unit-a-0/charm/venv/bin/python3", "/usr/bin/python3", True),
        ("root/.ssh/x", "/root/.ssh/y", True),
        ("root/.ssh/x", "/etc/shadow", False),
        ("x", "/etc/passwd", False),
        ("x", "y", False),
        ("var/lib/juju/x", "a\0b", False),
    ],
)
def test_links_stay_where_they_belong(name: str, target: str, stays: bool) -> None:
    assert link_stays(name, target) is stays
