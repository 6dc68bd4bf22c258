"""What a root file system consists of, in a folder or in a tar, so that trees of different tools can be compared.

Run as a program (in a user namespace, perhaps), it prints that of a folder, after changes if they are asked for:

    python trees.py FOLDER [change]
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import sys
import tarfile
from pathlib import Path

Facts = list[object]
"""kind, mode, uid, gid, seconds, content or target, extended attributes, other names of the same file"""
Tree = dict[str, Facts]

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep, as security.capability has it (VFS_CAP_REVISION_2)"""
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff")
"""user::rw-,user:1000:r--,group::r--,mask::r--,other::--- as system.posix_acl_access has it"""
OURS = ("user.overlay.", "user.nbhull.", "user.containers.", "trusted.", "security.selinux")
"""attributes that a store keeps for itself"""


def of_folder(root: str | Path) -> Tree:
    """Of a folder that this process may read."""
    found: Tree = {}
    names: dict[tuple[int, int], list[str]] = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            kind, shown = stat.S_IFMT(status.st_mode), os.path.relpath(path, root)
            content = ""
            if kind == stat.S_IFLNK:
                content = os.readlink(path)
            elif kind == stat.S_IFREG:
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            attributes = {
                name: os.getxattr(path, name, follow_symlinks=False).hex()
                for name in os.listxattr(path, follow_symlinks=False)
                if not name.startswith(OURS)
            }
            others = names.setdefault((status.st_dev, status.st_ino), []) if kind != stat.S_IFDIR else []
            others.append(shown)
            found[shown] = facts(kind, status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), content,
                                 attributes, others)  # fmt: skip
    return finished(found)


def of_tar(data: bytes) -> Tree:
    """Of an archive, its whiteouts left out."""
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.REGTYPE: stat.S_IFREG, tarfile.SYMTYPE: stat.S_IFLNK,
             tarfile.FIFOTYPE: stat.S_IFIFO}  # fmt: skip
    found: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = os.path.normpath(member.name)
            if os.path.basename(name).startswith(".wh."):
                continue
            if member.islnk():
                same = found[os.path.normpath(member.linkname)]
                assert isinstance(same[7], list)
                same[7].append(name)
                found[name] = same
                continue
            content = member.linkname
            if member.isfile():
                opened = tar.extractfile(member)
                assert opened is not None
                content = hashlib.sha256(opened.read()).hexdigest()
            prefix = "SCHILY.xattr."
            attributes = {
                key.removeprefix(prefix): value.encode("utf-8", "surrogateescape").hex()
                for key, value in member.pax_headers.items()
                if key.startswith(prefix)
            }
            found[name] = facts(kinds[member.type], member.mode, member.uid, member.gid, int(member.mtime), content,
                                attributes, [name])  # fmt: skip
    return finished(found)


def facts(
    kind: int, mode: int, uid: int, gid: int, seconds: int, content: str, attributes: dict[str, str], names: list[str]
) -> Facts:
    """Of one file, what matters of its kind."""
    mode = 0o777 if kind == stat.S_IFLNK else stat.S_IMODE(mode)
    return [oct(kind), oct(mode), uid, gid, seconds, content, attributes, names]


def finished(tree: Tree) -> Tree:
    """With the names of each file sorted."""
    found = {}
    for name, one in tree.items():
        names = one[7]
        assert isinstance(names, list)
        found[name] = [*one[:7], sorted(names) if len(names) > 1 else []]
    return found


def without_attributes(tree: Tree, *prefixes: str) -> Tree:
    """Without some extended attributes."""
    found = {}
    for name, one in tree.items():
        attributes = one[6]
        assert isinstance(attributes, dict)
        kept = {key: value for key, value in attributes.items() if not key.startswith(prefixes)}
        found[name] = [*one[:6], kept, one[7]]
    return found


def without(tree: Tree, *names: str) -> Tree:
    """Without some files, and what lies below them."""
    below = tuple(f"{name}/" for name in names)
    return {name: one for name, one in tree.items() if name not in names and not name.startswith(below)}


def change(root: str | Path) -> None:
    """Do to a root file system what programs do: one of everything."""
    root = Path(root)
    new = root / "added"
    (new / "deep").mkdir(parents=True)
    (new / "deep/file").write_bytes(b"x" * 3000)
    os.link(new / "deep/file", new / "hard")
    os.symlink("deep/file", new / "soft")
    os.mkfifo(new / "fifo")
    (new / "\N{GREEK SMALL LETTER ALPHA} b").write_text("a name in Greek, with a space")
    (new / ("n" * 150)).write_text("a long name")
    (new / "empty").touch()
    (new / "raw").write_text("may send raw packets")
    (new / "listed").write_text("who may read it is listed")
    for name, uid, gid in (("deep/file", 1000, 1000), ("raw", 0, 1005), ("soft", 1000, 1000), ("fifo", 7, 8)):
        os.chown(new / name, uid, gid, follow_symlinks=False)
    for name, mode in (("deep/file", 0o4755), ("deep", 0o2750), ("fifo", 0o620), ("", 0o1777), ("empty", 0)):
        (new / name).chmod(mode)
    os.setxattr(new / "deep/file", "user.colour", b"blue\0\xff")
    os.setxattr(new / "deep", "user.colour", b"green")
    os.setxattr(new / "raw", "security.capability", CAPABILITY)
    os.setxattr(new / "listed", "system.posix_acl_access", ACL)
    (root / "lower/gone").unlink()
    shutil.rmtree(root / "lower/gone-folder")
    shutil.rmtree(root / "lower/new-folder")
    (root / "lower/new-folder").mkdir()
    (root / "lower/new-folder/new").write_text("new")
    shutil.rmtree(root / "lower/now-a-file")
    (root / "lower/now-a-file").write_text("a file")
    (root / "lower/now-a-folder").unlink()
    (root / "lower/now-a-folder").mkdir()
    (root / "lower/changed").chmod(0o600)
    moments = iter(range(981_173_106, 1 << 31))
    for folder in (new, root / "lower"):
        for parent, folders, files in os.walk(folder, topdown=False):
            for name in sorted((*folders, *files)):
                seconds = next(moments)
                os.utime(os.path.join(parent, name), (seconds, seconds), follow_symlinks=False)
        os.utime(folder, (1_000_000_001, 1_000_000_001))


if __name__ == "__main__":
    if sys.argv[2:] == ["change"]:
        change(sys.argv[1])
    json.dump(of_folder(sys.argv[1]), sys.stdout)
