#!/usr/bin/env python3
"""Second implementation of the check of an audit log, from docs/formats/audit-log.md alone.

    python3 verify_audit.py DIR KEYFILE

KEYFILE has the keys that are trusted, one a line (NAME+NUMBER+BASE64). Prints what was found whole,
or the number of the first bad record, and then exits with 1. Needs only the PyPI package
`cryptography`.
"""

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256
HEADER = 40


class Bad(Exception):
    """The log is not what was signed, from this record on."""

    def __init__(self, index, what):
        super().__init__(f"bad from record {index}: {what}")
        self.index = index


def require(condition, index, what):
    if not condition:
        raise Bad(index, what)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf(record):
    return sha256(b"\x00", record)


def root(hashes):
    """RFC 6962, 2.1, over hashes of subtrees of one size."""
    if not hashes:
        return sha256()
    if len(hashes) == 1:
        return hashes[0]
    left = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01", root(hashes[:left]), root(hashes[left:]))


class Tree:
    """Grows at its right edge; `peaks` are full subtrees, the largest first."""

    def __init__(self):
        self.size = 0
        self.peaks = []

    def push(self, hash_):
        self.size += 1
        height = 0
        while self.peaks and self.peaks[-1][0] == height:
            hash_ = sha256(b"\x01", self.peaks.pop()[1], hash_)
            height += 1
        self.peaks.append((height, hash_))

    def root(self):
        if not self.peaks:
            return sha256()
        result = self.peaks[-1][1]
        for _, hash_ in reversed(self.peaks[:-1]):
            result = sha256(b"\x01", hash_, result)
        return result


def decode(text):
    return base64.b64decode(text, validate=True)


def read_keys(path):
    keys = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, number, encoded = line.split("+", 2)
        data = decode(encoded)
        require(data[0] in (1, 4) and len(data) == 33, 0, "not a key")
        kind, public = data[:1], data[1:]
        expected = sha256(name.encode(), b"\n", kind, public)[:4]
        require(bytes.fromhex(number) == expected, 0, "a key with another number")
        keys[name, expected] = (kind[0], Ed25519PublicKey.from_public_bytes(public))
    return keys


def open_checkpoint(note, keys):
    """Size, root and origin of a note that the log itself has signed."""
    body, separator, lines = note.rpartition("\n\n")
    require(separator and lines.endswith("\n") and body, 0, "not a signed note")
    body += "\n"
    by_log = False
    origin, size, encoded = body.split("\n")[:3]
    for line in lines.splitlines():
        dash, name, data = line.split(" ")
        require(dash == "\u2014", 0, "not a signature line")
        data = decode(data)
        known = keys.get((name, data[:4]))
        if known is None:
            continue
        kind, key = known
        message, signature = body.encode(), data[4:]
        if kind == 4:
            time = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {time}\n".encode() + message
            signature = signature[8:]
        try:
            key.verify(signature, message)
        except InvalidSignature:
            raise Bad(0, "a bad signature of a known key") from None
        by_log |= kind == 1 and name == origin
    require(by_log, 0, "no known key has signed the checkpoint")
    require(str(int(size)) == size, 0, "a size with another spelling")
    return int(size), decode(encoded), origin


def name_of(kind, number, width):
    groups = [f"{number % 1000:03}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{kind}/{'/'.join(reversed(groups))}{partial}"


class Log:
    def __init__(self, directory, keys):
        self.directory = directory
        self.keys = keys

    def read(self, name, index):
        path = self.directory / name
        require(path.is_file(), index, f"{name} is missing")
        return path.read_bytes()

    def tile(self, level, number, width, index):
        data = self.read(name_of(level, number, width), index)
        require(len(data) == 32 * width, index, "a tile of another length")
        return [data[at : at + 32] for at in range(0, len(data), 32)]

    def records(self, number, width):
        first = number * WIDTH
        data, at, index = self.read(name_of("entries", number, width), first), 0, first
        while at < len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            require(len(data) >= at + 2 + length, index, "a bundle ends within a record")
            yield data[at + 2 : at + 2 + length]
            at, index = at + 2 + length, index + 1

    def text(self, name, missing):
        """A file that may be missing."""
        path = self.directory / name
        return path.read_text(encoding="utf-8") if path.is_file() else missing

    def earlier(self, notes, newest):
        """The checkpoints that were kept, as a map of size to root."""
        parts = notes.split("\n\n")
        require(parts.pop() == "" and len(parts) % 2 == 0, 0, "a list that ends within a note")
        kept, last = {}, 0
        for body, lines in zip(parts[::2], parts[1::2]):
            size, root_, _ = open_checkpoint(f"{body}\n\n{lines}\n", self.keys)
            require(last < size <= newest, last, "checkpoints that do not follow each other")
            kept[size], last = root_, size
        return kept

    def segments(self, size):
        """Hashes of the records that lie in segments, by number; how many are not signed."""
        held, end = {}, None
        for path in sorted((self.directory / "wal").glob("*.wal")):
            first = int(path.stem)
            require(end in (None, first), end, "a segment is missing")
            end = self.segment(path.read_bytes(), first, held)
        if end is None:
            return held, 0
        require(end >= size, end, "fewer records than the checkpoint covers")
        return held, end - size

    def segment(self, data, first, held):
        fields = b"LKAUDSEG" + first.to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(4)
        require(data[:HEADER] == fields + sha256(fields)[:16], first, "a bad segment header")
        at, index = HEADER, first
        while True:
            group = self.group(data[at:], index)
            if group is None:
                start = data.find(b"LKAUDGRP", at)
                while start >= 0:
                    claimed = int.from_bytes(data[start + 8 : start + 16], "big")
                    later = claimed > index and self.group(data[start:], claimed)
                    require(not later, index, "a bad group before a good one")
                    start = data.find(b"LKAUDGRP", start + 1)
                return index
            hashes, length = group
            held.update(zip(range(index, index + len(hashes)), hashes))
            at, index = at + length, index + len(hashes)

    @staticmethod
    def group(data, index):
        """Hashes and length of the group that begins here, or None."""
        head = data[:HEADER]
        if len(head) < HEADER or head[:16] != b"LKAUDGRP" + index.to_bytes(8, "big"):
            return None
        count, length = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        body, at, hashes = data[HEADER : HEADER + length], 0, []
        if len(body) < length:
            return None
        while at < length:
            size = int.from_bytes(body[at : at + 2], "big")
            hashes.append(leaf(body[at + 2 : at + 2 + size]))
            at += 2 + size
        good = at == length and count == len(hashes) > 0
        good = good and sha256(head[:24], *hashes)[:16] == head[24:]
        return (hashes, HEADER + length) if good else None

    def check(self):
        # In this order: a log that goes on has signed what these say before its next checkpoint.
        minimum, notes = int(self.text("minimum-index", "0")), self.text("checkpoints", "")
        note = self.read("checkpoint", 0).decode()
        size, expected, origin = open_checkpoint(note, self.keys)
        require(minimum <= size and minimum % WIDTH == 0, 0, "a minimum index that does not fit")
        earlier = self.earlier(notes, size)
        held, unsigned = self.segments(size)
        tree, sure, pruned, levels = Tree(), 0, 0, [[]]
        for number in range((size + WIDTH - 1) // WIDTH):
            first = number * WIDTH
            width = min(WIDTH, size - first)
            hashes = self.tile(0, number, width, first)
            if first >= minimum:
                count = 0
                for place, record in enumerate(self.records(number, width)):
                    fits = place < width and leaf(record) == hashes[place]
                    require(fits, first + place, "another record than its tile has the hash of")
                    pruned, count = max(pruned, removal(record)), place + 1
                require(count == width, first + count, "a bundle lacks it")
            for hash_ in hashes:
                other = held.get(tree.size, hash_)
                require(other == hash_, tree.size, "its segment holds another record")
                tree.push(hash_)
                if tree.size in earlier:
                    require(tree.root() == earlier[tree.size], sure, "not what was signed earlier")
                    sure = tree.size
            if width == WIDTH:
                self.grow(levels, 1, root(hashes))
        self.partials(levels, size)
        require(tree.root() == expected, sure, "not what was signed")
        require(minimum <= pruned, pruned, "records are missing, and none tells of it")
        return f"{origin}: records {minimum} to {size} are whole, {unsigned} not signed"

    def grow(self, levels, level, hash_):
        """Adds the root of a full tile to the level above; compares that one when it is full."""
        if len(levels) == level:
            levels.append([])
        levels[level].append(hash_)
        if len(levels[level]) % WIDTH == 0:
            number = len(levels[level]) // WIDTH - 1
            self.compare(level, number, levels[level][-WIDTH:])
            self.grow(levels, level + 1, root(levels[level][-WIDTH:]))

    def partials(self, levels, size):
        for level in range(1, len(levels)):
            number, width = divmod(size // WIDTH**level, WIDTH)
            if width:
                self.compare(level, number, levels[level][-width:])

    def compare(self, level, number, hashes):
        first = number * WIDTH ** (level + 1)
        found = self.tile(level, number, len(hashes), first)
        for place, (ours, theirs) in enumerate(zip(hashes, found)):
            require(ours == theirs, first + place * WIDTH**level, "a tile has another hash")


def removal(record):
    """The number before which this record says that records were removed; 0 for others."""
    if not record.startswith(b'{"action":"audit:Prune"'):
        return 0
    reason = json.loads(record).get("reason", "")
    start = "records are removed before "
    return int(reason[len(start) :]) if reason.startswith(start) else 0


def main():
    directory, key_file = map(pathlib.Path, sys.argv[1:3])
    try:
        print(Log(directory, read_keys(key_file)).check())
    except (Bad, ValueError) as error:
        print(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
