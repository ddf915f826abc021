"""Data sets: images and texts as NumPy arrays, embedded, from a folder, or downloaded once."""

import gzip
import hashlib
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from ..decays import choice
from .digits import digits_data

Split = Literal["train", "test"]


class MissingData(OSError):  # noqa: N818 - what it says is what it is
    """A file is neither in the folder `CT_ADAM_DATA` nor in the cache, and no download worked."""


class Text(NamedTuple):
    """A text as numbers: character i is `alphabet[tokens[i]]`."""

    tokens: Int[np.ndarray, " n"]
    alphabet: str


class _Source(NamedTuple):
    url: str
    algorithm: Literal["sha256", "md5"]
    checksum: str


_MNIST = {
    "train-images-idx3": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_SOURCES = {
    "tinyshakespeare/input.txt": _Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "sha256",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "cifar10/cifar-10-python.tar.gz": _Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "md5",  # the only one that its authors publish
        "c58f30108f718f92721af3b95e74349a",
    ),
} | {
    f"mnist/{name}-ubyte.gz": _Source(
        f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}-ubyte.gz", "sha256", checksum
    )
    for name, checksum in _MNIST.items()
}


def images(
    name: str, split: Split = "train", count: int | None = None
) -> tuple[Float[np.ndarray, "n height width channels"], Int[np.ndarray, " n"]]:
    """Images with values in [0, 1] and their classes 0 … 9.

    **Arguments:**

    - `name`: `"digits"` (scikit-learn's, 8 × 8 × 1, embedded: no file is needed), `"mnist"`
        (28 × 28 × 1, 60 000 and 10 000) or `"cifar10"` (32 × 32 × 3, 50 000 and 10 000).
    - `split`: `"train"` or `"test"`. Digits has no split of its own: a fixed permutation makes
        one, 1437 for training and 360 for testing. (`digits_data` gives all, in their order.)
    - `count`: the first so many; None for all.

    **Returns:** `(inputs, labels)`: float32 of shape (n, height, width, channels), and int32 of
    shape (n,). float32, for the pixels have 8 bits, and CIFAR-10 in float64 takes 1.2 GB; the
    models cast to the type of their parameters.

    **Raises:** `ValueError` for an unknown name, split or count, and for a damaged file;
    `MissingData` where a file is nowhere, with a sentence that says where to put it.

    !!! example
        >>> inputs, labels = images("digits", "test", count=100)
        >>> inputs.shape, labels.shape, float(inputs.max())
        ((100, 8, 8, 1), (100,), 1.0)
    """
    choice("name", name, tuple(_IMAGES))
    choice("split", split, get_args(Split))
    pixels, labels, largest = _IMAGES[name](split)
    if count is not None and not (
        isinstance(count, int | np.integer) and 1 <= count <= len(labels)
    ):
        raise ValueError(
            f"count = {count!r} must be a whole number between 1 and {len(labels)}, the number of "
            f"images in {name!r}, split {split!r}."
        )
    return pixels[:count] / np.float32(largest), labels[:count].astype(np.int32)


def text(name: str) -> Text:
    """A text in English, one token a character.

    **Arguments:**

    - `name`: `"tinyshakespeare"` (1 115 394 characters, 65 distinct), or `"python_topics"`, the
        help texts that come with Python (the standard library's `pydoc_data.topics`, topics in
        alphabetical order): no file is needed, but it differs a little from one Python version to
        the next (some 500 000 characters, 104 distinct), so numbers that are to be compared want
        the first.

    **Returns:** a `Text`: `tokens`, int32 of shape (n,), and `alphabet`, the distinct
    characters in the order of their code points.

    **Raises:** as `images`.

    !!! example
        >>> topics = text("python_topics")
        >>> "".join(topics.alphabet[i] for i in topics.tokens[:8])
        'The "ass'
    """
    choice("name", name, tuple(_TEXTS))
    codes = np.frombuffer(_TEXTS[name]().encode("utf-32-le"), dtype="<u4")
    alphabet, tokens = np.unique(codes, return_inverse=True)
    return Text(tokens.astype(np.int32), "".join(map(chr, alphabet)))


def _locate(file: str) -> Path:
    """The path of one file of `_SOURCES`, its checksum verified."""
    folder = os.environ.get("CT_ADAM_DATA")
    if folder and (path := Path(folder, file).expanduser()).is_file():
        _verify(path, _SOURCES[file])
        return path
    return _download(file)


def _verify(path: Path, source: _Source) -> None:
    # Only SHA-256: CIFAR-10 has no more than an MD5 of one packing of it, and somebody who puts a
    # repacked or shortened archive in the folder means it. gzip's own checksum guards the bytes.
    if source.algorithm != "sha256":
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != source.checksum:
        raise ValueError(
            f"{path} is not the file it should be: its sha256 is {found}, not {source.checksum}."
        )


def _download(file: str) -> Path:
    import pooch  # with requests: 0.2 s

    source = _SOURCES[file]
    folder, _, base = file.rpartition("/")
    # Seconds to connect, and between two packets: a machine whose network swallows packets gets its
    # answer soon, a slow line still gets its file. (pooch's protocol has other argument names.)
    downloader: Any = pooch.HTTPDownloader(timeout=(5, 30))
    checksum = f"{source.algorithm}:{source.checksum}"
    cache = Path(pooch.os_cache("ct_adam"), folder)
    try:
        return Path(pooch.retrieve(source.url, checksum, base, cache, downloader=downloader))
    except OSError as error:  # requests' errors are OSErrors, and so is a cache one cannot write
        wanted = Path(os.environ.get("CT_ADAM_DATA") or "FOLDER", file)
        raise MissingData(
            f"{file} is neither in the folder CT_ADAM_DATA nor in the cache, and its download from "
            f"{source.url} failed ({type(error).__name__}): put that file at {wanted}, "
            f"{source.algorithm} {source.checksum}, and set CT_ADAM_DATA to the folder "
            f"{wanted.parents[1]}."
        ) from error


_Pixels = tuple[np.ndarray, np.ndarray, int]  # images, labels, and the value that means white


def _digits(split: Split) -> _Pixels:
    inputs, labels = digits_data()
    # RandomState, not default_rng: its stream is frozen, so the split is the same for ever.
    order = np.random.RandomState(0).permutation(len(labels))
    boundary = len(labels) * 4 // 5
    chosen = order[:boundary] if split == "train" else order[boundary:]
    return inputs[chosen].reshape(-1, 8, 8, 1).astype(np.float32), labels[chosen], 1


def _mnist(split: Split) -> _Pixels:
    prefix = "train" if split == "train" else "t10k"
    pixels = _read_idx(_locate(f"mnist/{prefix}-images-idx3-ubyte.gz"), axes=3)
    labels = _read_idx(_locate(f"mnist/{prefix}-labels-idx1-ubyte.gz"), axes=1)
    if len(pixels) != len(labels):
        raise ValueError(f"MNIST's files disagree: {len(pixels)} images, {len(labels)} labels.")
    return pixels[..., None], labels, 255


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """IDX: two zero bytes, 8 for unsigned bytes, the number of axes, their lengths, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    start = 4 + 4 * axes
    if len(content) < start or content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(f"{path} is no IDX file of unsigned bytes with {axes} axes.")
    shape = tuple(map(int, np.frombuffer(content, ">u4", axes, offset=4)))
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} is damaged: {values.size} values where its header says {shape}.")
    return values.reshape(shape)


def _cifar10(split: Split) -> _Pixels:
    path = _locate("cifar10/cifar-10-python.tar.gz")
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    try:
        batches = _read_batches(path, [f"cifar-10-batches-py/{name}" for name in names])
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged or not CIFAR-10: {error}.") from error
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return pixels, labels, 255


# What gzip, tarfile and pickle raise when bytes are not what they expect.
_DAMAGE = (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError, pickle.UnpicklingError)
_DAMAGE += (ValueError, TypeError, AttributeError, LookupError)


def _read_batches(path: Path, names: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    # One pass in the archive's order, which is not ours: going back means unpacking it anew.
    with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        found = {m.name: _read_batch(archive, m) for m in archive if m.name in names}
        while stream.read(1 << 20):  # to the end, where gzip compares its checksum
            pass
    return [found[name] for name in names]


def _read_batch(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[np.ndarray, np.ndarray]:
    """One pickled batch: a row holds 1024 red, 1024 green and 1024 blue values."""
    content: Any = archive.extractfile(member)
    batch = _BatchUnpickler(content, encoding="bytes").load()
    rows, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    if rows.dtype != np.uint8 or rows.shape != (len(labels), 3072):
        raise ValueError(f"rows of {member.name} are {rows.dtype}{list(rows.shape)}")
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _latin1(characters: str, encoding: str) -> bytes:
    del encoding  # Python 3 writes bytes for Python 2 as the characters of Latin-1, never another
    return characters.encode("latin1")


# The functions that rebuild arrays and NumPy's numbers, as NumPy names them in its own pickles.
_BUILDERS: list[tuple[str, Any]] = [
    ("multiarray", np.empty(0).__reduce__()[0]),
    ("numeric", np.empty(0).__reduce_ex__(5)[0]),
    ("multiarray", np.int64(0).__reduce__()[0]),
]


class _BatchUnpickler(pickle.Unpickler):
    """Arrays, numbers, strings and containers, nothing else: a pickle can run any function that
    it may name, so a few are named here, and neither `numpy` nor `builtins` as a whole (`eval`)."""

    # NumPy 1 wrote `numpy.core`, which NumPy 2 calls `numpy._core` and warns of: the objects stand
    # here, so that no module is imported by a name out of a file.
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    } | {
        (f"numpy.{core}.{module}", builder.__name__): builder
        for core in ("core", "_core")
        for module, builder in _BUILDERS
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self.allowed[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no batch needs"
            ) from None


def _tinyshakespeare() -> str:
    return _locate("tinyshakespeare/input.txt").read_bytes().decode()


def _python_topics() -> str:
    from pydoc_data.topics import topics  # half a megabyte of text

    return "\n".join(topics[key] for key in sorted(topics))


_IMAGES: dict[str, Callable[[Split], _Pixels]]
_IMAGES = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}
_TEXTS = {"tinyshakespeare": _tinyshakespeare, "python_topics": _python_topics}
