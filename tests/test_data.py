"""Data sets: the real copies where they lie, and files that the tests write themselves."""

import gzip
import hashlib
import io
import os
import pickle
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest

from ct_adam.problems import data

MNIST = ("mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz")
CIFAR = "cifar10/cifar-10-python.tar.gz"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty CT_ADAM_DATA and an empty cache, without a network."""

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setenv("CT_ADAM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "data"


def write(folder, file, content, monkeypatch=None):
    """Puts a file in the folder; with `monkeypatch` its checksum becomes the expected one."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if monkeypatch is not None:
        changed = data._SOURCES[file]._replace(checksum=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(data._SOURCES, file, changed)
    return path


def zipped(content):
    """Without the time, which would be part of a test's name and differ between processes."""
    return gzip.compress(content, mtime=0)


def idx(values):
    values = np.asarray(values, np.uint8)
    lengths = b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return zipped(bytes([0, 0, 8, values.ndim]) + lengths + values.tobytes())


def cifar_archive(batches):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_batches(rng, rows=4, protocol=2):
    """Six batches in the set's layout, in the disorder of its archive, and what they hold."""
    raw, packed = {}, {}
    for name in ("data_batch_4", "test_batch", *(f"data_batch_{i}" for i in (3, 1, 5, 2))):
        pixels, labels = rng.integers(0, 256, (rows, 3072), np.uint8), rng.integers(0, 10, rows)
        raw[name] = (pixels, labels)
        batch = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": name.encode()}
        packed[name] = pickle.dumps(batch, protocol)
    return raw, packed


# Embedded sets.


def test_digits_are_split_once_and_for_all():
    parts = {split: data.images("digits", split) for split in ("train", "test")}
    inputs, labels = (np.concatenate(part) for part in zip(*parts.values(), strict=True))
    assert [len(part[1]) for part in parts.values()] == [1437, 360]
    assert inputs.shape == (1797, 8, 8, 1)
    assert (inputs.dtype, labels.dtype) == (np.float32, np.int32)
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    expected = sorted(zip(map(tuple, pixels), classes, strict=True))
    found = sorted(zip(map(tuple, inputs.reshape(-1, 64) * 16), labels, strict=True))
    assert found == expected  # every image once, with its label
    # Recorded: numbers of experiments hang on this split.
    assert parts["train"][1][:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    assert parts["test"][1][-8:].tolist() == [8, 4, 5, 3, 3, 7, 7, 8]
    assert np.bincount(parts["test"][1]).min() > 20


def test_count_takes_the_first():
    inputs, labels = data.images("digits", count=7)
    everything = data.images("digits")
    np.testing.assert_array_equal(inputs, everything[0][:7])
    np.testing.assert_array_equal(labels, everything[1][:7])


def test_python_topics_is_the_standard_librarys_text():
    from pydoc_data.topics import topics

    tokens, alphabet = data.text("python_topics")
    joined = "".join(np.array(list(alphabet))[tokens])
    assert joined == "\n".join(topics[key] for key in sorted(topics))
    assert list(alphabet) == sorted(set(joined))
    assert tokens.dtype == np.int32


# What the caller gets wrong.


@pytest.mark.parametrize("count", [0, -1, 1438, 2.5, "all"])
def test_count_out_of_range(count):
    with pytest.raises(ValueError, match=r"between 1 and 1437"):
        data.images("digits", count=count)


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(ValueError, match=r"'imagenet' is unknown.*'digits', 'mnist', 'cifar10'"):
        data.images("imagenet")
    with pytest.raises(ValueError, match=r"'mnist' is unknown.*'tinyshakespeare', 'python_topics'"):
        data.text("mnist")
    with pytest.raises(
        ValueError, match="split = 'valid' is unknown: choose one of 'train', 'test'"
    ):
        data.images("digits", "valid")


# The real copies.


def test_real_mnist(real_data):
    folder = real_data(*MNIST)
    inputs, labels = data.images("mnist", "test")
    assert inputs.shape == (10_000, 28, 28, 1)
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as everybody knows them
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    with gzip.open(folder / MNIST[0]) as stream:  # the last image, without the reader
        last = np.frombuffer(stream.read()[-784:], np.uint8).reshape(28, 28)
    np.testing.assert_allclose(inputs[-1, :, :, 0], last / 255, rtol=1e-7)


def test_real_tinyshakespeare(real_data):
    folder = real_data("tinyshakespeare/input.txt")
    tokens, alphabet = data.text("tinyshakespeare")
    assert (len(tokens), len(alphabet)) == (1_115_394, 65)
    assert "".join(alphabet[i] for i in tokens[:14]) == "First Citizen:"
    joined = "".join(np.array(list(alphabet))[tokens])
    assert joined.encode() == (folder / "tinyshakespeare/input.txt").read_bytes()


def test_real_cifar10(real_data):
    real_data(CIFAR)
    inputs, labels = data.images("cifar10", "test")
    assert inputs.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10


# Files that the test writes.


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_idx_files(folder, monkeypatch, split, prefix):
    rng = np.random.default_rng(0)
    pixels, classes = rng.integers(0, 256, (5, 28, 28)), rng.integers(0, 10, 5)
    write(folder, f"mnist/{prefix}-images-idx3-ubyte.gz", idx(pixels), monkeypatch)
    write(folder, f"mnist/{prefix}-labels-idx1-ubyte.gz", idx(classes), monkeypatch)
    inputs, labels = data.images("mnist", split, count=3)
    np.testing.assert_allclose(inputs[..., 0], pixels[:3] / 255, rtol=1e-7)
    np.testing.assert_array_equal(labels, classes[:3])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar_archive(folder, protocol):
    raw, packed = cifar_batches(np.random.default_rng(1), protocol=protocol)
    write(folder, CIFAR, cifar_archive(packed))
    for split, names in {
        "train": [f"data_batch_{i}" for i in range(1, 6)],
        "test": ["test_batch"],
    }.items():
        inputs, labels = data.images("cifar10", split)
        rows, classes = (np.concatenate(p) for p in zip(*(raw[n] for n in names), strict=True))
        np.testing.assert_array_equal(labels, classes)
        assert inputs.shape == (len(rows), 32, 32, 3)
        for n, i, j, channel in np.random.default_rng(2).integers(
            0, [len(rows), 32, 32, 3], (50, 4)
        ):
            # a row: all red values line by line, then green, then blue
            expected = rows[n, channel * 1024 + i * 32 + j] / 255
            assert inputs[n, i, j, channel] == pytest.approx(expected, rel=1e-7)


def test_cifar_as_python_2_wrote_it(folder):
    # The real archive: strings of bytes under protocol 2, and numpy.core, not numpy._core.
    _, packed = cifar_batches(np.random.default_rng(1))
    pixels = bytes(range(256)) * 12
    old = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00" + pixels + b"tb"
        b"U\x06labels](K\x06eu."
    )
    write(folder, CIFAR, cifar_archive(packed | {"test_batch": old}))
    inputs, labels = data.images("cifar10", "test")
    assert labels.tolist() == [6]
    expected = np.frombuffer(pixels, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_allclose(inputs[0], expected / 255, rtol=1e-7)


# Damage.


def test_a_wrong_checksum_names_the_file_and_both_hashes(folder):
    path = write(folder, "tinyshakespeare/input.txt", b"To be, or not to be")
    with pytest.raises(ValueError, match="sha256") as caught:
        data.text("tinyshakespeare")
    for part in (
        str(path),
        hashlib.sha256(b"To be, or not to be").hexdigest(),
        data._SOURCES["tinyshakespeare/input.txt"].checksum,
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (idx(np.zeros((2, 28, 28)))[:-9], "damaged"),
        (b"no gzip", "damaged"),
        (idx(np.zeros(2)), "3 axes"),
        (zipped(b"\0\0"), "3 axes"),
        (
            gzip.compress(gzip.decompress(idx(np.zeros((2, 28, 28))))[:-5], mtime=0),
            "1563 values.*2, 28, 28",
        ),
        (idx(np.zeros((3, 28, 28))), "3 images, 2 labels"),
    ],
)
def test_damaged_idx(folder, monkeypatch, content, match):
    write(folder, MNIST[0], content, monkeypatch)
    write(folder, MNIST[1], idx([1, 2]), monkeypatch)
    with pytest.raises(ValueError, match=match):
        data.images("mnist", "test")


class Exploit:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def damaged_archives():
    raw, packed = cifar_batches(np.random.default_rng(1))
    whole = cifar_archive(packed)
    labels = raw["test_batch"][1].tolist()
    short = pickle.dumps({b"data": np.zeros((4, 100), np.uint8), b"labels": labels})
    yield "no gzip", b"not an archive", "cifar-10-python.tar.gz is damaged"
    yield "half", whole[: len(whole) // 2], "cifar-10-python.tar.gz is damaged"
    yield "checksum", whole[:-8] + b"\0\0\0\0" + whole[-4:], "CRC"
    yield "no batch", cifar_archive({"readme": b"hello"}), "test_batch"
    yield "no pickle", cifar_archive(packed | {"test_batch": b"hello"}), "is damaged"
    yield "no dict", cifar_archive(packed | {"test_batch": pickle.dumps([1])}), "is damaged"
    yield "shape", cifar_archive(packed | {"test_batch": short}), r"uint8\[4, 100\]"
    for exploit, name in [
        (Exploit(eval, "1/0"), "builtins.eval"),
        (Exploit(os.system, "false"), f"{os.name}.system"),
        (Exploit(np.fromfile, "/etc/hostname"), "fromfile"),
    ]:
        yield name, cifar_archive(packed | {"test_batch": pickle.dumps(exploit)}), name


@pytest.mark.parametrize(
    ("content", "match"), [pytest.param(c, m, id=name) for name, c, m in damaged_archives()]
)
def test_damaged_cifar(folder, content, match):
    write(folder, CIFAR, content)
    with pytest.raises(ValueError, match=match):
        data.images("cifar10", "test")


# Nowhere, and downloaded.


@pytest.mark.parametrize(
    ("load", "file"),
    [
        (lambda: data.text("tinyshakespeare"), "tinyshakespeare/input.txt"),
        (lambda: data.images("mnist"), "mnist/train-images-idx3-ubyte.gz"),
        (lambda: data.images("cifar10"), CIFAR),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_missing_set_says_in_a_sentence_where_to_put_it(folder, monkeypatch, load, file, given):
    if not given:
        monkeypatch.delenv("CT_ADAM_DATA")
    with pytest.raises(data.MissingData) as caught:
        load()
    assert isinstance(caught.value, OSError)
    message = str(caught.value)
    assert message.count(". ") == 0
    assert "\n" not in message
    root = folder if given else Path("FOLDER")
    assert f"put that file at {root / file}" in message
    assert f"set CT_ADAM_DATA to the folder {root}" in message
    for part in (file, data._SOURCES[file].checksum, data._SOURCES[file].url):
        assert part in message


def test_a_download_is_checked_and_kept(folder, monkeypatch):
    content, calls = b"a short text", []

    class Downloader:
        def __init__(self, timeout):
            assert max(timeout) <= 60  # no hanging

        def __call__(self, url, output_file, pooch, check_only=False):
            calls.append(url)
            Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch, "HTTPDownloader", Downloader)
    with pytest.raises(ValueError, match=hashlib.sha256(content).hexdigest()):
        data.text("tinyshakespeare")  # not the file that was expected: nothing is kept
    source = data._SOURCES["tinyshakespeare/input.txt"]
    source = source._replace(checksum=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(data._SOURCES, "tinyshakespeare/input.txt", source)
    for _ in range(2):
        assert data.text("tinyshakespeare").alphabet == " aehorstx"
    assert calls == [source.url] * 2  # refused, loaded, then from the cache


def test_sets_are_imported_lazily():
    code = (
        "import sys, ct_adam.problems.data; "
        "print({'sklearn', 'pooch', 'requests', 'pydoc_data'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
