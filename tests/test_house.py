"""The house: data walks one way through its rooms, and no two files import each other in a loop."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = ["_version", "decays", "caches", "named", "identity", "norms", "conventions", "progress"]
ROOMS = [
    *GROUND,
    "torch",
    "theory",
    "plotting",
    "problems",
    "optimizers",
    "diagnostics",
    "flows",
    "simulate",
    "ensemble",
    "sweep",
    "",  # the face: `import ct_adam`
    "report",
    "cli",
    "__main__",
]
"""From the ground up: a room uses none that stands later in this list."""


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(p): p for top in ("ct_adam", "experiments") for p in ROOT.glob(f"{top}/**/*.py")}


def _imported(module, path):
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inside = f"{base}.{alias.name}"
                yield inside if inside in FILES else base


USES = {
    module: {m for m in _imported(module, path) if m in FILES} for module, path in FILES.items()
}


def _room(module):
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "ct_adam" else top


def test_imports_are_seen():
    # Every spelling: from ..room import, from .file import, inside a function, of the face.
    assert "ct_adam.decays" in USES["ct_adam.flows.adam"]
    assert "ct_adam.flows.adam" in USES["ct_adam.flows"]
    assert "ct_adam.problems" in USES["ct_adam.optimizers.step"]
    assert "ct_adam.sweep.provenance" in USES["experiments.region_atlas"]
    assert "ct_adam._version" in USES["ct_adam"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_uses_only_what_stands_below(room):
    below = ROOMS[: ROOMS.index(room) + 1]
    for module in FILES:
        if module.startswith("ct_adam") and _room(module) == room:
            above = {used for used in USES[module] if _room(used) not in below}
            assert not above, f"{module} imports {sorted(above)}, which stand above it"


def test_every_room_has_its_place():
    assert {_room(module) for module in FILES} - {"experiments"} == set(ROOMS)


@pytest.mark.parametrize("room", ["theory", "plotting"])
def test_closed_forms_and_pictures_know_no_solver(room):
    allowed = {*GROUND, "theory", room}
    for module in FILES:
        if _room(module) == room and module.startswith("ct_adam"):
            assert {_room(used) for used in USES[module]} <= allowed, module


def test_no_two_files_import_each_other_in_a_loop():
    try:
        TopologicalSorter(USES).prepare()
    except CycleError as error:
        pytest.fail(f"a loop of imports: {' -> '.join(error.args[1])}")
