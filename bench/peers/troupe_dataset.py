"""Reads a dataset folder of `troupe prepare` (kind pairs): the same packs, rows and order as Troupe trains on.

Files (data/token_file.hpp): a header of 64 bytes, then packs of samples; a sample is a head of 24 bytes, source and
target tokens, zeros up to a multiple of 8. The index has an entry of 16 bytes a pack.
"""
import json
import pathlib
import struct

import numpy as np

MASK64 = (1 << 64) - 1


def mix64(a, b):
    z = (a + 0x9E3779B97F4A7C15 * (b + 1)) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def philox_first(key, low, high):
    """The first of the four numbers of Philox4x32-10."""
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    c = [low & 0xFFFFFFFF, low >> 32, high & 0xFFFFFFFF, high >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[0]


def permuted(key, size, index):
    """kernels/base/random.hpp: a 6-round Feistel network, walked until it falls inside."""
    half = 1
    while (1 << (2 * half)) < size:
        half += 1
    mask = (1 << half) - 1
    value = index
    while True:
        left, right = value >> half, value & mask
        for number in range(6):
            left, right = right, left ^ (philox_first(key, right, number) & mask)
        value = (left << half) | right
        if value < size:
            return value


class Dataset:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.shards, self.entries, self.width = {}, {}, 2

    def split(self, name):
        if name not in self.entries:
            files = self.manifest["splits"][name]
            index = (self.folder / files["index"]["name"]).read_bytes()
            self.width = struct.unpack_from("<I", index, 12)[0]
            self.entries[name] = [struct.unpack_from("<QII", index, at) for at in range(64, len(index), 16)]
            self.shards[name] = [np.memmap(self.folder / shard["name"], np.uint8, "r") for shard in files["shards"]]
        return self.entries[name]

    def packs(self, name):
        return len(self.split(name))

    def samples(self, name, pack):
        """(source ids, target ids) of a pack's rows, without <s> and </s>."""
        offset, shard, count = self.split(name)[pack]
        bytes_, at = self.shards[name][shard], 64 + offset
        rows = []
        for _ in range(count):
            _, _, window, source, target = struct.unpack_from("<QIIII", bytes_, at)
            if window:
                raise ValueError("windows of running text are not pairs")
            type_ = np.uint16 if self.width == 2 else np.int32
            tokens = np.frombuffer(bytes_, type_, source + target, at + 24).astype(np.int64)
            rows.append((tokens[:source], tokens[source:]))
            at += 24 + (source + target) * self.width
            at += -(at - 64 - offset) % 8
        return rows

    def batch(self, name, pack, bos=2, eos=3, pad=0):
        """source, source lengths, target_in, target_out (-1: not counted), target tokens."""
        rows = self.samples(name, pack)
        source = np.full((len(rows), max(len(s) for s, _ in rows) + 1), pad, np.int64)
        target_in = np.full((len(rows), max(len(t) for _, t in rows) + 1), pad, np.int64)
        target_out = np.full_like(target_in, -1)
        for row, (s, t) in enumerate(rows):
            source[row, : len(s)], source[row, len(s)] = s, eos
            target_in[row, 0], target_in[row, 1 : len(t) + 1] = bos, t
            target_out[row, : len(t)], target_out[row, len(t)] = t, eos
        lengths = np.array([len(s) + 1 for s, _ in rows])
        return source, lengths, target_in, target_out, int((target_out >= 0).sum())

    def slot_batch(self, seed, step, slot, slots):
        packs = self.packs("train")
        epoch, index = divmod(step * slots + slot, packs)
        return self.batch("train", permuted(mix64(mix64(seed, 0x7061636B73), epoch), packs, index))

    def texts(self, name):
        """(source, target) of a held-out split, in corpus order."""
        path = self.folder / self.manifest["splits"][name]["text"]["name"]
        return [tuple(line.split("\t")[2:4]) for line in path.read_text().split("\n") if line]
