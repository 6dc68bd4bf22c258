"""A program that changes files in every way, one system call at a time, and a model of what they are after each.

Run inside a container by `python3 -c`, it tells its progress in a mapped file; imported outside, it tells what must
be there. It needs nothing but the standard library.
"""

from __future__ import annotations

import mmap
import os
import random
import select
import stat
import struct
import sys
import time
from typing import Any

BLOCKS = 64
"""of eight bytes, in the mapped file and in the file that is written in place"""
SEALED = 0o440
"""mode of files that are not written any more, and may have several names: writing to one of them in an overlay
parts it from the others"""


class Model:
    """What is in a writer's folder: by path, (kind, content or target, mode)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0
        self.entries: dict[str, list[Any]] = {}
        self.folder = ""
        """the working folder, relative to the writer's own, with a slash at its end"""
        self.deleted = b""
        self.opened: str | None = None
        self.begin()

    def begin(self) -> None:
        """What there is before the first step."""
        self.entries["log"] = ["file", b"", 0o644]
        self.entries["placed"] = ["file", bytes(8 * BLOCKS), 0o644]
        self.entries["mapped"] = ["file", bytes(8 * BLOCKS), 0o644]
        self.log = "log"

    def step(self) -> tuple[str, ...]:
        """Choose the next change, make it here, and say what it is."""
        self.count += 1
        while True:
            act = self.random.choice(
                ["append", "append", "place", "map", "create", "fill", "rename", "unlink", "mkdir", "enter", "leave",
                 "symlink", "seal", "link", "chmod", "truncate", "fifo", "ghost", "relog", "rmdir"]
            )  # fmt: skip
            done = getattr(self, f"do_{act}")()
            if done is not None:
                return (act, *done)

    def new(self) -> str:
        return f"{self.folder}n{self.count}"

    def some(self, kind: str) -> str | None:
        """An entry that is not one of the first three."""
        found = [p for p, e in self.entries.items() if e[0] == kind and p not in (self.log, "placed", "mapped")]
        return self.random.choice(sorted(found)) if found else None

    def do_append(self) -> tuple[str, ...]:
        text = f"{self.count}\n"
        self.entries[self.log][1] += text.encode()
        return (text,)

    def put(self, name: str) -> tuple[str, ...]:
        at = self.random.randrange(BLOCKS) * 8
        value = struct.pack("=Q", self.count)
        content = self.entries[name][1]
        self.entries[name][1] = content[:at] + value + content[at + 8 :]
        return (str(at), str(self.count))

    def do_place(self) -> tuple[str, ...]:
        return self.put("placed")

    def do_map(self) -> tuple[str, ...]:
        return self.put("mapped")

    def do_create(self) -> tuple[str, ...]:
        self.opened = self.new()
        self.entries[self.opened] = ["file", b"", 0o640]
        return (self.opened,)

    def do_fill(self) -> tuple[str, ...] | None:
        if self.opened is None:
            return None
        text = f"filled {self.count}\n" * self.random.randrange(1, 400)
        self.entries[self.opened][1] += text.encode()
        return (text,)

    def do_rename(self) -> tuple[str, ...] | None:
        old = self.some("file")
        if old is None:
            return None
        new = self.new()
        self.entries[new] = self.entries.pop(old)
        if old == self.opened:
            self.opened = new
        return (old, new)

    def do_relog(self) -> tuple[str, ...]:
        """Rename the log, which goes on being written."""
        old, self.log = self.log, f"log{self.count}"
        self.entries[self.log] = self.entries.pop(old)
        return (old, self.log)

    def do_unlink(self) -> tuple[str, ...] | None:
        victim = self.some(self.random.choice(["file", "link", "fifo"]))
        if victim is None:
            return None
        del self.entries[victim]
        if victim == self.opened:
            self.opened = None
        return (victim,)

    def do_mkdir(self) -> tuple[str, ...]:
        self.entries[self.new()] = ["folder", None, 0o755]
        return (self.new(),)

    def do_enter(self) -> tuple[str, ...] | None:
        inner = [p for p, e in self.entries.items() if e[0] == "folder" and p.rpartition("/")[0] == self.folder[:-1]]
        if not inner or self.folder.count("/") > 4:
            return None
        self.folder = f"{self.random.choice(sorted(inner))}/"
        return (self.folder,)

    def do_leave(self) -> tuple[str, ...] | None:
        if not self.folder:
            return None
        self.folder = self.folder[:-1].rpartition("/")[0]
        self.folder += "/" if self.folder else ""
        return (self.folder,)

    def do_rmdir(self) -> tuple[str, ...] | None:
        folder = self.some("folder")
        if folder is None or any(path.startswith(f"{folder}/") for path in (self.folder, *self.entries)):
            return None
        del self.entries[folder]
        return (folder,)

    def do_symlink(self) -> tuple[str, ...]:
        self.entries[self.new()] = ["link", f"to {self.count}", 0o777]
        return (f"to {self.count}", self.new())

    def do_seal(self) -> tuple[str, ...] | None:
        """Let a file not be written any more."""
        name = self.some("file")
        if name is None or name == self.opened or self.entries[name][2] == SEALED:
            return None
        self.entries[name][2] = SEALED
        return (name,)

    def do_link(self) -> tuple[str, ...] | None:
        """One more name for a sealed file."""
        old = self.some("file")
        if old is None or self.entries[old][2] != SEALED:
            return None
        self.entries[self.new()] = self.entries[old][:]
        return (old, self.new())

    def do_chmod(self) -> tuple[str, ...] | None:
        name = self.some("file")
        if name is None or self.entries[name][2] == SEALED:
            return None
        mode = self.random.choice([0o600, 0o755, 0o711])
        self.entries[name][2] = mode
        return (name, str(mode))

    def do_truncate(self) -> tuple[str, ...] | None:
        name = self.some("file")
        if name is None or self.entries[name][2] == SEALED:
            return None
        self.entries[name][1] = self.entries[name][1][:5]
        return (name, str(len(self.entries[name][1])))

    def do_fifo(self) -> tuple[str, ...]:
        self.entries[self.new()] = ["fifo", None, 0o644]
        return (self.new(),)

    def do_ghost(self) -> tuple[str, ...]:
        """Write to a file that has been deleted."""
        text = f"ghost {self.count}\n"
        self.deleted += text.encode()
        return (text,)


class Writer:
    """Does to real files what the model chooses."""

    def __init__(self, base: str, model: Model, progress: str) -> None:
        self.base = base
        self.model = model
        with open(progress, "r+b") as file:
            self.progress = mmap.mmap(file.fileno(), 8)
        os.umask(0)
        os.makedirs(base)
        os.chdir(base)
        self.root = os.open(".", os.O_RDONLY)
        self.log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.placed = self.sized("placed")
        self.mapping = mmap.mmap(self.sized("mapped"), 8 * BLOCKS)
        self.file = -1
        self.ghost = os.open("ghost", os.O_RDWR | os.O_CREAT)
        os.unlink("ghost")

    def sized(self, name: str) -> int:
        fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(fd, 8 * BLOCKS)
        return fd

    def step(self) -> None:
        act, *words = self.model.step()
        getattr(self, f"do_{act}")(*words)
        self.progress[:8] = struct.pack("=Q", self.model.count)

    def path(self, name: str) -> str:
        """Relative to the working folder where it can be, so that the folder matters."""
        folder = self.model.folder
        return name[len(folder) :] if folder and name.startswith(folder) else f"{self.base}/{name}"

    def do_append(self, text: str) -> None:
        os.write(self.log, text.encode())

    def do_place(self, at: str, value: str) -> None:
        os.pwrite(self.placed, struct.pack("=Q", int(value)), int(at))

    def do_map(self, at: str, value: str) -> None:
        struct.pack_into("=Q", self.mapping, int(at), int(value))

    def do_create(self, name: str) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)

    def do_fill(self, text: str) -> None:
        os.lseek(self.file, 0, os.SEEK_END)
        os.write(self.file, text.encode())

    def do_rename(self, old: str, new: str) -> None:
        os.rename(self.path(old), self.path(new))

    def do_relog(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self.root, dst_dir_fd=self.root)

    def do_unlink(self, name: str) -> None:
        os.unlink(self.path(name))

    def do_mkdir(self, name: str) -> None:
        os.mkdir(self.path(name), 0o755)

    def do_enter(self, folder: str) -> None:
        os.chdir(f"{self.base}/{folder}")

    def do_leave(self, folder: str) -> None:
        os.chdir("..")

    def do_rmdir(self, name: str) -> None:
        os.rmdir(self.path(name))

    def do_symlink(self, target: str, name: str) -> None:
        os.symlink(target, self.path(name))

    def do_seal(self, name: str) -> None:
        os.chmod(self.path(name), SEALED)

    def do_link(self, old: str, new: str) -> None:
        os.link(self.path(old), self.path(new))

    def do_chmod(self, name: str, mode: str) -> None:
        os.chmod(self.path(name), int(mode))

    def do_truncate(self, name: str, size: str) -> None:
        os.truncate(self.path(name), int(size))

    def do_fifo(self, name: str) -> None:
        os.mkfifo(self.path(name), 0o644)

    def do_ghost(self, text: str) -> None:
        os.write(self.ghost, text.encode())


def scan(base: str) -> dict[str, list[Any]]:
    """What is in a folder, as the model has it."""
    found: dict[str, list[Any]] = {}
    for folder, names, files in os.walk(base):
        for name in [*names, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                kind = "file"
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                kind, content = "link", os.readlink(path)
            else:
                kind = "folder" if stat.S_ISDIR(status.st_mode) else "fifo"
            found[os.path.relpath(path, base)] = [kind, content, mode]
    return found


def main(base: str, seed: str, progress: str) -> None:
    """Write until standard input ends; then everything must be there. Prints `whole`, or what differs."""
    writer = Writer(base, Model(int(seed)), progress)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(20):
            writer.step()
        time.sleep(0.001)  # or there would be more steps than can be looked at
    found, wanted = scan(base), writer.model.entries
    differing = [
        (path, str(found.get(path))[-80:], str(wanted.get(path))[-80:])
        for path in sorted({*found, *wanted})
        if found.get(path) != wanted.get(path)
    ]
    ghost = os.pread(writer.ghost, 1 << 30, 0) == writer.model.deleted
    is_there = os.getcwd() == f"{base}/{writer.model.folder}".rstrip("/")
    print("whole" if ghost and is_there and not differing else differing)


if __name__ == "__main__":
    main(*sys.argv[1:])
