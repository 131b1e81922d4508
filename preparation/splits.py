"""Decides which rows were seen before, and which split each belongs to.

Runs in the Prepare step's processing container.

A row's split follows from the digest of its group and the shares alone, so it doesn't depend on the other rows: adding
data never moves a row from test to train. The group is the group column's value, else how the row begins: its system
message and the first user message (of a text, all of it) but for differences in blanks. So rows with the same prompt
stay together, and so do a conversation and another that goes on from it, which begin alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "validation", "test")
TRACKED_GROUPS = 4096
"""Up to so many groups their sizes are kept, to fill a split that would stay empty; with more none stays empty."""


INDEXED_BITS = 12
"""Fewer digests than 2**15 are searched in the processor's cache anyway."""


class DigestSet:
    """A set of 64-bit digests in 8 bytes each, kept as a log-structured merge tree in memory (the logarithmic method).

    Its levels are sorted arrays, each at least twice as long as the next. New digests become a level of their own, and
    levels that are no longer long enough are merged into it, so that n digests cost n log n moves over the whole run; a
    lookup is a binary search in each of the few levels.

    Two different rows share a digest with probability n*n/2**65: 3e-8 for a million rows.
    """

    def __init__(self) -> None:
        self._levels: list[_Level] = []

    def __len__(self) -> int:
        return sum(len(level.digests) for level in self._levels)

    def contains(self, digests: Any) -> Any:
        """Returns a boolean array: which of the uint64 digests are in the set."""
        import numpy as np

        found: Any = np.zeros(len(digests), dtype=bool)
        for level in self._levels:
            found |= level.contains(digests)
        return found

    def add(self, digests: Any) -> Any:
        """Adds uint64 digests; returns a boolean array: which were new, counting only the first of equal ones."""
        import numpy as np

        distinct, first = np.unique(digests, return_index=True)
        fresh = ~self.contains(distinct)
        new: Any = np.zeros(len(digests), dtype=bool)
        new[first[fresh]] = True
        level = distinct[fresh]
        if len(level):
            while self._levels and len(self._levels[-1].digests) <= 2 * len(level):
                level = np.concatenate([self._levels.pop().digests, level])
                level.sort(kind="stable")
            self._levels.append(_Level(level))
        return new


class _Level:
    """Sorted digests, and in long ones where those with the same first bits begin.

    Digests are spread evenly, so that about eight have these bits: a search among them touches a few places in memory,
    where one in all of them would touch twenty that are far apart.
    """

    def __init__(self, digests: Any) -> None:
        import numpy as np

        self.digests = digests
        bits = len(digests).bit_length() - 4
        self._shift = np.uint64(64 - bits)
        self._starts: Any = None
        if bits >= INDEXED_BITS:
            first = np.arange(1 << bits, dtype=np.uint64) << self._shift
            self._starts = np.append(np.searchsorted(digests, first), len(digests)).astype(np.uint32)
            self._steps = int(np.diff(self._starts).max()).bit_length()

    def contains(self, digests: Any) -> Any:
        import numpy as np

        if self._starts is None:
            places = np.searchsorted(self.digests, digests)
        else:
            bucket = (digests >> self._shift).astype(np.int64)
            places, end = self._starts[bucket].astype(np.int64), self._starts[bucket + 1].astype(np.int64)
            for _ in range(self._steps):
                middle = np.minimum((places + end) >> 1, len(self.digests) - 1)
                right = (self.digests[middle] < digests) & (places < end)
                places, end = np.where(right, middle + 1, places), np.where(right, end, middle)
        return self.digests[np.minimum(places, len(self.digests) - 1)] == digests


@dataclass(frozen=True)
class Shares:
    """Parts of the rows, from 0 to 1; they need not add up to 1, only their proportions count."""

    train: float
    validation: float
    test: float

    def bounds(self) -> tuple[int, int]:
        """Digests below the first bound are test, below the second validation, the rest train."""
        whole = self.train + self.validation + self.test
        return int(self.test / whole * 2**64), int((self.test + self.validation) / whole * 2**64)

    def wanted(self) -> list[str]:
        """Names of the splits that should hold rows."""
        return [name for name in SPLITS if getattr(self, name) > 0]


class Splitter:
    """Says to which split a group belongs. `overrides` maps group digests to splits (indexes in SPLITS)."""

    def __init__(self, shares: Shares, seed: int, overrides: Mapping[bytes, int]) -> None:
        self.seed = seed
        self.overrides = dict(overrides)
        self._test, self._validation = shares.bounds()

    def splits_of(self, groups: bytes | bytearray) -> Any:
        """Returns the split of each of the 8-byte group digests that follow each other, as an array."""
        import numpy as np

        places = np.frombuffer(groups, dtype=">u8")
        found = (places < self._validation).astype(np.int8) + (places < self._test)
        for group, split in self.overrides.items():
            found[places == int.from_bytes(group, "big")] = split
        return found

    def split_of(self, group: bytes) -> int:
        """Returns the split of an 8-byte group digest."""
        if self.overrides and group in self.overrides:
            return self.overrides[group]
        place = int.from_bytes(group, "big")
        return 0 if place >= self._validation else 1 if place >= self._test else 2


def fill_empty_splits(groups: Mapping[bytes, int], shares: Shares) -> dict[bytes, int]:
    """Returns overrides {group digest: split} so that each wanted split holds at least one group.

    `groups` maps group digests to their number of rows. Groups are taken from the split with the most groups, smallest
    first; with too few groups for all splits, train is the one that gets one.
    """
    splitter = Splitter(shares, 0, {})
    wanted = [SPLITS.index(name) for name in shares.wanted()]
    members: dict[int, list[bytes]] = {split: [] for split in range(len(SPLITS))}
    for group in groups:
        members[splitter.split_of(group)].append(group)
    overrides: dict[bytes, int] = {}
    for split in wanted:
        if members[split]:
            continue
        donor = max(members, key=lambda other: (len(members[other]), -other))
        if len(members[donor]) < 2 and not (split < donor and members[donor]):
            continue
        chosen = min(members[donor], key=lambda group: (groups[group], group))
        members[donor].remove(chosen)
        members[split].append(chosen)
        overrides[chosen] = split
    return overrides
