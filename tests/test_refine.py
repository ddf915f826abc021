"""Refinement: the boundary of closed forms, at the price of a coarse map."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ct_adam as ct
from ct_adam.sweep.configured import SweepConfig, sweep_of
from ct_adam.sweep.grid import Tiling
from ct_adam.sweep.refine import beyond, crossed, doubled

CELLS = ct.axes.cells(0, 1, 16)


def followed(edge, resolution, tile=4):
    """What refinement finds of the region below b2 = edge(b1): classes on the finest grid, the
    lanes that it took, and the cells that were computed."""
    refine = ct.Refine(resolution, tile=tile)
    grids = refine.grids(ct.Grid(b1=CELLS, b2=CELLS))
    classes, lanes = None, 0
    for grid in grids:
        tiling = Tiling(grid.shape, refine.tile_of(grid))
        b1, b2 = grid.lanes(np.arange(grid.size)).values()
        truth = (b2 < edge(b1)).reshape(grid.shape)
        if classes is None:
            classes, lanes = truth, truth.size
            continue
        wanted = crossed(classes, (0, 1), tiling)
        classes = doubled(classes, (0, 1))
        for one in wanted:
            classes[tiling.block(one)] = truth[tiling.block(one)]
        lanes += len(wanted) * tiling.lanes
    return classes, truth, lanes


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 0.9), st.floats(-2, 2), st.floats(-1, 1))
def test_smooth_boundary_is_found_as_on_the_full_grid(at, slope, bend):
    """A boundary that stays a coarse cell away from the map's rim is never lost: nearer to it a
    region may be thinner than half a cell, which no coarse cell sees."""

    def edge(x):
        return at + slope * (x - 0.5) + bend * (x - 0.5) ** 2

    heights = edge(np.linspace(0, 1, 65))
    assume(heights.min() > 1 / 16 and heights.max() < 15 / 16)
    classes, truth, _ = followed(edge, 2**-7)
    np.testing.assert_array_equal(classes, truth)


def test_price_is_that_of_a_coarse_map():
    """A curve has length: its lanes double with the resolution, those of the full grid quadruple.

    Each level's band is at least a tile and a neighbour wide, at most three tiles: 3 tile/h lanes
    for a boundary of length 1 (|slope| ≤ 1), and the sum over levels twice the last.
    """
    tile = 4
    for levels in (6, 8, 10):
        _, truth, lanes = followed(lambda x: 0.2 + 0.6 * x, 2.0**-levels, tile)
        assert truth.size == 4**levels
        assert lanes <= len(CELLS) ** 2 + 2 * 3 * tile * 2**levels
    assert lanes < 128**2 * 2  # of 1024²


@pytest.mark.slow
def test_refined_worst_case_is_theorys_boundary(tmp_path):
    """2⁻¹⁰ in b2, from the 32² map; unstable is a slope above 1/steps, so up to 2 b2/steps below
    b2 = b1² (EQUATIONS §2)."""
    config = SweepConfig(
        problem="worst_case",
        method="adamw",
        steps=1000,
        b1="cells:0.5:1:32",
        b2="cells:0.5:1:32",
        refine="boundary",
        engine="fused",
    )
    dataset = sweep_of(config).run(tmp_path / "s.zarr")
    assert dataset.sizes == {"b1": 512, "b2": 512}
    assert dataset.level.values.max() == 4
    found = ct.boundary(dataset)
    inside = (found.b1**2 > 0.51).values  # where the map holds the boundary
    assert np.isfinite(found.boundary.values[inside]).all()
    assert float(found.uncertainty.max()) <= 2**-11
    off = (found.boundary - found.b1**2)[inside]
    # From below by the criterion, from above by half a cell.
    assert float(off.max()) <= 2**-11
    settled = off.b1**2 < 1 - 5 / 1000
    assert float(off[settled].min()) >= -(2 / 1000 + 2**-11)
    # Where the memory 1/(1 - b2) exceeds a fifth of the run, the transient of a fifth of 1/(1 - b2)
    # steps is part of the slope: of the order of 1 - b2 itself.
    assert float(off[~settled].min()) >= -5 / 1000
    # A full map of this resolution has 512² lanes.
    assert dataset.attrs["tiles_done"] * 64 < 128**2


def test_seeds_give_the_boundarys_spread(tmp_path):
    """A loss whose boundary is known for each seed: the update is past it where b2 < edge[seed]."""
    edges = jnp.array([0.3, 0.5, 0.55])

    def make(b1, b2, seed):
        # One step of a gradient 0 or 1: max |u| tells on which side the lane lies.
        gradient = jnp.where(b2 < edges[seed], 1.0, 0.0) * jnp.ones((4, 1))
        return ct.Case(ct.k_adam(1.0, b1, b2, eps=1e-3), ct.problems.GradientStream(gradient))

    cells = ct.axes.cells(0.1, 0.9, 8)
    sweep = ct.Sweep(
        make,
        None,
        jnp.zeros(1),
        4,
        ct.Grid(b1=cells, b2=cells, seed=ct.axes.seeds(3)),
        refine=ct.Refine(0.8 / 64, "max_update", 0.5, tile=4),
    )
    dataset = sweep.run(tmp_path / "s.zarr")
    found = ct.boundary(dataset, "max_update", 0.5)
    half = 0.8 / 64 / 2
    assert found.boundary.dims == ("b1", "seed")
    assert np.abs(found.boundary.values - np.asarray(edges)).max() <= half + 1e-12
    np.testing.assert_allclose(found.spread, np.std(edges, ddof=1), atol=2 * half)
    np.testing.assert_allclose(found["mean"], np.mean(edges), atol=half)
    assert (found.crossings == 1).all()


def test_number_that_is_none_lies_beyond():
    np.testing.assert_array_equal(
        beyond(np.array([0.0, 1.0, 2.0, np.nan, np.inf]), 1.0), [False, False, True, True, True]
    )


def test_highest_crossing_counts():
    values = np.array([[2.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    dataset = xarray.Dataset(
        {"x": (("b1", "b2"), values)}, {"b1": [0.5, 0.6], "b2": [0.1, 0.2, 0.3, 0.5]}
    )
    found = ct.boundary(dataset, "x", 1.0)
    np.testing.assert_allclose(found.boundary, [0.4, np.nan])
    np.testing.assert_allclose(found.uncertainty, [0.1, np.nan])
    assert found.crossings.values.tolist() == [3, 0]
    for names in (("y", "b2"), ("x", "b3")):
        with pytest.raises(ValueError, match=r"is no (variable|dimension) here"):
            ct.boundary(dataset, names[0], 1.0, names[1])
    with pytest.raises(ValueError, match="say where the boundary of x lies"):
        ct.boundary(dataset, "x")  # 1/steps is the criterion of a slope, of nothing else
    with pytest.raises(ValueError, match="'b2' has one value"):
        ct.boundary(dataset.isel(b2=[1]), "x", 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resolution": 0.0}, "resolution = 0.0"),
        ({"tile": 3}, "must be even"),
        ({"variable": "final_loss"}, "threshold: say where"),
    ],
)
def test_bad_refinements_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        ct.Refine(**options)


def test_grids_that_cannot_be_refined_are_refused():
    line = ct.axes.linear(0.1, 0.9, 16)
    with pytest.raises(ValueError, match="no cells to cut"):
        ct.Refine().grids(ct.Grid(b1=line, b2=CELLS))
    with pytest.raises(ValueError, match="no axis 'b2'"):
        ct.Refine().grids(ct.Grid(b1=CELLS))
    with pytest.raises(ValueError, match="b2 has 12 cells: give it a multiple of 8"):
        ct.Refine(tile=8).grids(ct.Grid(b1=CELLS, b2=ct.axes.cells(0, 1, 12)))
    with pytest.raises(ValueError, match="b2 has 9 cells: give it a multiple of 2"):
        ct.Refine().grids(ct.Grid(b1=CELLS, b2=ct.axes.cells(0, 1, 9)))
    assert ct.Refine().tile_of(ct.Grid(b1=CELLS, b2=ct.axes.cells(0, 1, 12))) == (4, 4)
