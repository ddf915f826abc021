"""Every public name stands on a page of docs/api, with a docstring and an example."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# The API. A room is a package whose __init__ says by `from .module import name as name` what is
# public. The torch room is left to the sources where PyTorch is missing.
ROOMS = sorted(
    ".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("ct_adam/**/__init__.py")
)
NO_PAGE = {"ct_adam.cli.main.main", "ct_adam.cli.main.entry"}
"""Behind the command `ct-adam`."""
NO_EXAMPLE = {
    # What one is given, or writes a subclass of; the function that returns it has an example.
    "AbstractAdamFlow", "AbstractFlow", "AbstractProblem", "AbstractSDE", "AdamState", "Advice",
    "Comparison", "DecayAdvice", "DescentTerms", "Entry",
    "InterpolatingState", "Invariances", "Map", "MissingData", "MomentumState", "NoiseEstimate",
    "OUTCOME", "Optimizer", "OrderFit", "REGIME", "RadiusDirectionState", "Residuals", "RunError",
    "SDEMoments", "Scaled", "ScalingAdvice", "StageState", "Text", "Trajectories", "Trajectory",
    "Trust", "UpdateRule", "VERDICT",
    # Parts of `solve`.
    "ErrorScale", "WholeStepBreaks",
    # Seconds of compilation, or stores: the commands, the tutorial and docs/sweeps.md run them.
    "FollowConfig", "GrowingStores", "Refine", "RegionConfig", "boundary", "coarse_trajectories",
    "describe", "describe_following", "document", "follow", "open",
    "panel_summary", "read_gallery", "read_maps", "read_tree", "region",
    "region_summary", "render", "sides_agreement",
}  # fmt: skip


def _file(module):
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(module):
    """What a module or room takes from its siblings: (name, module, name there)."""
    package = module.split(".") if _file(module).name == "__init__.py" else module.split(".")[:-1]
    for node in ast.parse(_file(module).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((alias.asname or alias.name, origin, alias.name) for alias in node.names)


def _home(module, name):
    """Where a name is defined, through re-exports: `ct_adam.theory.advice.advise`."""
    for shown, origin, original in _imported(module):
        if shown == name and (origin, original) != (module, name):
            return _home(origin, original)
    return f"{module}.{name}"


def _is_module(home):
    return _file(home).exists()


def _definition(home):
    """The node of a function, class or assignment, and what stands below it."""
    *module, name = home.split(".")
    body = ast.parse(_file(".".join(module)).read_text()).body
    for node, below in zip(body, [*body[1:], None], strict=True):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if getattr(node, "name", None) == name or name in [getattr(t, "id", "") for t in targets]:
            return node, below
    raise LookupError(home)


def _documentation(home):
    """A docstring, of a constant the string below it, "" if there is none."""
    node, below = _definition(home)
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return ast.get_docstring(node) or ""
    said = below.value if isinstance(below, ast.Expr) else None
    return said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""


@pytest.fixture(scope="module")
def public():
    """What is public, by the place where it is defined; modules and `__version__` apart."""
    names = {_home(module, name) for room in ROOMS for _, module, name in _imported(room)}
    return {home for home in names if not _is_module(home) and not home.endswith("__")}


@pytest.fixture(scope="module")
def on_pages():
    """What the API pages show, by the place where it is defined."""
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    shown = [name.rpartition(".") for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    return [_home(module, name) for module, _, name in shown]


def test_every_public_name_is_on_a_page(public, on_pages):
    missing = sorted(public - set(on_pages) - NO_PAGE)
    assert not missing, f"put a line `::: NAME` into a page of docs/api for each of {missing}"


def test_no_page_shows_what_is_not_there_or_twice(on_pages):
    assert sorted(on_pages) == sorted(set(on_pages))
    for home in on_pages:
        assert _is_module(home) or _definition(home)


def test_every_public_name_is_documented(public):
    undocumented = sorted(home for home in public if not _documentation(home).strip())
    assert not undocumented, f"without docstring: {undocumented}"


def test_every_public_name_has_an_example(public):
    """But for those above, of which none may stay there that has one, or that has gone."""
    callable_ = {
        home
        for home in public
        if isinstance(_definition(home)[0], ast.FunctionDef | ast.ClassDef) and home not in NO_PAGE
    }
    without = {home for home in callable_ if ">>>" not in _documentation(home)}
    owing = sorted(home for home in without if home.rpartition(".")[2] not in NO_EXAMPLE)
    assert not owing, f"without example: {owing}"
    idle = NO_EXAMPLE - {home.rpartition(".")[2] for home in without}
    assert not idle, f"take out of NO_EXAMPLE: {sorted(idle)}"
