"""Long discrete runs: kept on disk while they go on, resumed where they stopped.

The run is cut into calls of two compiled functions, which do not know where the cuts are: so a
resumed run is bitwise the uninterrupted one. On disk there is one part a checkpoint, with what was
observed since the last one, and a state that is replaced as a whole; a part without its state is
written again.
"""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..decays import whole_number
from ..identity import program_hash
from ..progress import bar


class Observation(NamedTuple):
    """What is kept of a step: parameters and update or what `save` made of them, and the loss."""

    saved: PyTree
    value: Any
    finite: Any


def resumable(
    carry: PyTree,
    advance: Callable[[PyTree, Any], PyTree],
    record: Callable[[PyTree], tuple[PyTree, Observation]],
    save_at: np.ndarray,
    folder: str | Path | None,
    every: int,
    progress: bool,
) -> Observation:
    """Records every step of `save_at`, from `carry` or from the checkpoint in `folder`.

    With a folder, Ctrl-C ends it early: what was done is kept there, and returned.
    """
    every = whole_number("checkpoint_every", every)
    kept = None
    if folder is not None:
        kept = _Checkpoint(Path(folder), _identity(record, carry, save_at))
    at, seen = _Position(carry, 0, 0), []
    if kept is not None and kept.exists():
        at, seen = kept.load(carry, jax.eval_shape(record, carry)[1])
    moves = _moves(advance, record, save_at, every, at, seen)
    with bar(int(save_at[-1]) + 1, "step", at.n, progress) as told:
        try:
            for position in moves:
                told.update(position.n - at.n)
                due = position.n // every > at.n // every
                at = position
                if kept is not None and due:
                    kept.store(at, seen)
        except KeyboardInterrupt:
            if kept is None or not at.recorded:
                raise
        if kept is not None:
            kept.store(at, seen)
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *seen[: at.recorded])


class _Position(NamedTuple):
    """A consistent point of a run: its carry at step n, and how many observations precede it."""

    carry: PyTree
    n: int
    recorded: int


def _moves(
    advance: Callable[[PyTree, Any], PyTree],
    record: Callable[[PyTree], tuple[PyTree, Observation]],
    save_at: np.ndarray,
    every: int,
    at: _Position,
    seen: list[Observation],
) -> Iterator[_Position]:
    """One position after the other; a position is handed out only when it is computed."""
    for target in map(int, save_at[at.recorded :]):
        while at.n < target:
            # Never past a multiple of `every`, so that a checkpoint falls on each.
            count = min(target, (at.n // every + 1) * every) - at.n
            carry = jax.block_until_ready(advance(at.carry, jnp.asarray(count)))
            at = _Position(carry, at.n + count, at.recorded)
            yield at
        carry, observation = jax.block_until_ready(record(at.carry))
        seen.append(jax.device_get(observation))
        at = _Position(carry, at.n + 1, at.recorded + 1)
        yield at


def _identity(record: Callable[[PyTree], Any], carry: PyTree, save_at: np.ndarray) -> str:
    """A run is known by the program of one step, with its constants (schedules, data, what is
    saved), by its start and by the steps that it saves."""
    return f"{program_hash(record, carry)} {hashlib.sha256(save_at.tobytes()).hexdigest()}"


class _Checkpoint:
    """A folder with `state.npz`, replaced as a whole, and `part-K.npz`, observations since the
    last state. The state counts its parts: a part that a kill left without one is written again."""

    def __init__(self, folder: Path, identity: str):
        self.folder, self.parts, self.stored, self.identity = folder, 0, 0, identity
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"checkpoint = {folder}: {error.strerror}; name a folder.") from None

    def exists(self) -> bool:
        return (self.folder / "state.npz").exists()

    def store(self, at: _Position, seen: list[Observation]) -> None:
        fresh = seen[self.stored : at.recorded]
        if fresh:
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *fresh)
            self._write(f"part-{self.parts}.npz", jax.tree.leaves(stacked))
            self.parts, self.stored = self.parts + 1, at.recorded
        counts = np.array([at.n, at.recorded, self.parts])
        identity = np.frombuffer(self.identity.encode(), np.uint8)
        self._write("state.npz", [counts, identity, *jax.tree.leaves(at.carry)])

    def load(self, carry: PyTree, like: Observation) -> tuple[_Position, list[Observation]]:
        counts, identity, *leaves = self._read("state.npz")
        if identity.tobytes().decode() != self.identity:
            raise ValueError(
                f"{self.folder} holds a checkpoint of another run (start, loss, data, optimizer, "
                "save or save_steps differ): name another folder, or remove it."
            )
        n, self.stored, self.parts = map(int, counts)
        structure = jax.tree.structure(like)
        seen = []
        for k in range(self.parts):
            columns = self._read(f"part-{k}.npz")
            seen += [structure.unflatten(row) for row in zip(*columns, strict=True)]
        carry = jax.tree.unflatten(jax.tree.structure(carry), map(jnp.asarray, leaves))
        return _Position(carry, n, self.stored), seen

    def _write(self, name: str, leaves: list[Any]) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
            np.savez(file, *map(np.asarray, leaves))  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, self.folder / name)

    def _read(self, name: str) -> list[np.ndarray]:
        try:
            with np.load(self.folder / name) as archive:
                return [archive[f"arr_{i}"] for i in range(len(archive.files))]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            raise ValueError(
                f"{self.folder / name} is missing or damaged: remove {self.folder} to start anew."
            ) from None
