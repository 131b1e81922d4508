"""Finds rows that are nearly the same as an earlier one, by MinHash. Runs in the Prepare step's processing container.

Two rows are compared by the pieces of five characters that they have: their similarity is the share of pieces in both
(Jaccard), in lower case and without regard to blanks. 128 minima of hashes of the pieces estimate it, with a standard
error of 0.03 to 0.04; rows that agree in one band of these minima are compared (locality-sensitive hashing), so that
99 of 100 pairs at the threshold are found. (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.)

Memory: 128 bytes of minima, 16 of place and 12 for each band a row, about 400 bytes, and 650 at peak. numpy alone:
AWS's image has no library for it, and jobs install nothing.
"""

from __future__ import annotations

from array import array
from typing import Any

from common.targets import normalised

MINIMA = 128
PIECE = 5
FOUND = 0.99
"""Share of the pairs right at the threshold that must become candidates."""
MOST_OF_BAND = 16
"""Earlier rows with one band that a row is compared with."""
BLOCK = 4096
"""Pieces that are hashed at once."""


def bands(threshold: float) -> int:
    """Minima per band: the most with which pairs at the threshold are still found."""
    wide = [
        width for width in range(1, 33) if 1 - (1 - threshold**width) ** (MINIMA // width) >= FOUND
    ]  # fmt: skip
    return max(wide)


class NearDuplicates:
    """The rows so far, of which none is nearly the same as another. `threshold` is a similarity from 0.5 to 1."""

    def __init__(self, threshold: float, seed: int = 17) -> None:
        import numpy as np

        self.threshold = threshold
        self.width = bands(threshold)
        dice = np.random.Generator(np.random.PCG64(seed))
        self._factors = dice.integers(1 << 63, size=MINIMA, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = dice.integers(1 << 63, size=MINIMA, dtype=np.uint64)
        self._minima: Any = np.empty((1024, MINIMA), dtype=np.uint8)
        self._levels: list[tuple[Any, Any]] = []
        self._files: array[int] = array("L")
        self._lines: array[int] = array("L")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, texts: list[str], file: int, lines: list[int]) -> list[tuple[int, int, float] | None]:
        """Adds each row unless it is nearly an earlier one: then its (file, line, similarity), else None."""
        import numpy as np

        if not texts:
            return []
        minima = np.stack([self._minima_of(text) for text in texts])
        keys = self._keys(minima)
        small = minima.astype(np.uint8)
        earlier = self._earlier(keys)
        here: dict[int, list[int]] = {}
        found: list[tuple[int, int, float] | None] = []
        kept = []
        for row, row_keys in enumerate(keys.tolist()):
            candidates = set(earlier.get(row, ()))
            for key in row_keys:
                candidates.update(here.get(key, ()))
            like = self._most_alike(small[row], sorted(candidates))
            found.append(like)
            if like is None:
                place = self._keep(small[row], file, lines[row])
                kept.append((row, place))
                for key in row_keys:
                    here.setdefault(key, [])
                    if len(here[key]) < MOST_OF_BAND:
                        here[key].append(place)
        if kept:
            rows, places = np.array(kept, dtype=np.uint32).T
            self._index(keys[rows].ravel(), np.repeat(places, keys.shape[1]))
        return found

    def _minima_of(self, text: str) -> Any:
        """The least hash of all pieces under each of the hash functions, uint32 (MINIMA,)."""
        import numpy as np

        signs = np.frombuffer(normalised(text).lower().encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(
            np.uint64
        )
        if len(signs) < PIECE:
            signs = np.pad(signs, (0, PIECE - len(signs)))
        least: Any = np.full(MINIMA, np.iinfo(np.uint32).max, dtype=np.uint32)
        for start in range(0, len(signs) - PIECE + 1, BLOCK):
            block = signs[start : start + BLOCK + PIECE - 1]
            pieces: Any = np.zeros(len(block) - PIECE + 1, dtype=np.uint64)
            for place in range(PIECE):
                pieces = pieces * np.uint64(0x100000001B3) + block[place : place + len(pieces)]
            pieces = np.unique(_mixed(pieces))
            hashes = (pieces[None, :] * self._factors[:, None] + self._offsets[:, None]) >> np.uint64(32)
            least = np.minimum(least, hashes.min(axis=1).astype(np.uint32))
        return least

    def _keys(self, minima: Any) -> Any:
        """A digest of each band, uint64 (rows, bands)."""
        import numpy as np

        count = MINIMA // self.width
        cut = minima[:, : count * self.width].reshape(len(minima), count, self.width).astype(np.uint64)
        keys = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint64), (len(minima), count))
        for place in range(self.width):
            keys = _mixed(keys * np.uint64(0x9E3779B97F4A7C15) + cut[:, :, place])
        return keys

    def _earlier(self, keys: Any) -> dict[int, set[int]]:
        """Places of indexed rows that share a band, by the row's number."""
        import numpy as np

        found: dict[int, set[int]] = {}
        flat = keys.ravel()
        for level, places in self._levels:
            left = np.searchsorted(level, flat)
            for step in range(MOST_OF_BAND):
                at = np.minimum(left + step, len(level) - 1)
                hits = np.flatnonzero((left + step < len(level)) & (level[at] == flat))
                if not len(hits):
                    break
                for hit, place in zip((hits // keys.shape[1]).tolist(), places[at[hits]].tolist(), strict=True):
                    found.setdefault(hit, set()).add(place)
        return found

    def _most_alike(self, minima: Any, candidates: list[int]) -> tuple[int, int, float] | None:
        """The first of the most similar candidates, if it is similar enough."""
        if not candidates:
            return None
        shares = (self._minima[candidates] == minima).mean(axis=1)
        best = int(shares.argmax())
        similarity = (float(shares[best]) - 1 / 256) / (1 - 1 / 256)  # the low byte of a minimum agrees by chance, too
        if similarity < self.threshold:
            return None
        return self._files[candidates[best]], self._lines[candidates[best]], similarity

    def _keep(self, minima: Any, file: int, line: int) -> int:
        import numpy as np

        place = len(self._lines)
        if place == len(self._minima):
            self._minima = np.concatenate([self._minima, np.empty_like(self._minima)])
        self._minima[place] = minima
        self._files.append(file)
        self._lines.append(line)
        return place

    def _index(self, keys: Any, places: Any) -> None:
        """Adds (key, place) pairs as a level of their own, merged into the one before as in splits.DigestSet."""
        import numpy as np

        while self._levels and len(self._levels[-1][0]) <= 2 * len(keys):
            more, their = self._levels.pop()
            keys, places = np.concatenate([more, keys]), np.concatenate([their, places])
        order = np.argsort(keys, kind="stable")
        self._levels.append((keys[order], places[order]))


def _mixed(values: Any) -> Any:
    """Bits spread over the whole number (the finalizer of SplitMix64)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
