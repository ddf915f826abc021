"""How well a flow follows its optimizer on a real network (EQUATIONS §1)."""

import itertools

import ct_adam as ct


def relative_error(learning_rate, steps, eps, **options):
    problem, params = ct.problems.digits_mlp((32,))
    flow = ct.AdamFlow(learning_rate, eps=eps)
    saved = range(0, steps + 1, steps // 60)
    ours = ct.solve(flow, problem, params, steps, save_steps=saved, **options)
    return ct.compare(ours, ct.run(flow, problem, params, steps, save_steps=saved))


def test_error_halves_with_the_learning_rate():
    """Digits 64-32-10, tanh, full batch, eps = 1e-2, η · steps = 0.3."""
    # The solver's own error, 1e-6 relative and 1e-9 absolute, is a thousandth of the difference.
    errors = [relative_error(0.3 / n, n, 1e-2).relative_error for n in (300, 600, 1200)]
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    print(f"relative errors {errors}, ratios {ratios}")
    assert all(abs(ratio / 2 - 1) < 0.15 for ratio in ratios)


def test_error_at_the_defaults():
    """eps = 1e-8, where sign changes spoil the order: reported; 12 to 18 η in EQUATIONS §1."""
    for n in (300, 600):
        result = relative_error(0.3 / n, n, 1e-8)
        print(f"η = {0.3 / n:g}: {result.max_error / (0.3 / n):.1f} η, {result.relative_error:.2%}")
        assert result.max_error < 30 * 0.3 / n
