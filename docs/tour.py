"""A tour by sliders: Adam, its ODE and the interpolating flow on the contours of a loss.

    .venv/bin/marimo run docs/tour.py    # `make region` or `make test` has made .venv

marimo's format: a function a cell, whose arguments are what other cells return.
"""

import marimo

app = marimo.App(width="medium", app_title="A tour of ct_adam")


@app.cell
def _libraries():
    import jax
    import jax.numpy as jnp
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np

    import ct_adam as ct
    from ct_adam.plotting import OKABE_ITO, style

    jax.config.update("jax_enable_x64", True)
    return OKABE_ITO, ct, jax, jnp, mo, np, plt, style


@app.cell
def _words(mo):
    mo.md(
        """
        # Adam, its ODE, and the flow through its iterates

        Three runs of 200 steps from one start. **Adam** is what people train with; **the ODE** is
        `ct.AdamFlow`, the same equation in continuous time; **the interpolating flow** passes
        through the optimizer's iterates, whatever the optimizer is. Move a slider and watch where
        they part.
        """
    )


@app.cell
def _losses(jnp):
    # Of a point (x, y), with the start.
    losses = {
        "a narrow bowl": (lambda x: (x[0] ** 2 + 20 * x[1] ** 2) / 2, (2.0, 1.0)),
        "a bowl with ripples": (
            lambda x: (x[0] ** 2 + 5 * x[1] ** 2) / 2 + 0.5 * jnp.sum(1 - jnp.cos(4 * x)),
            (2.0, 1.5),
        ),
        "a curved valley": (
            lambda x: (1 - x[0]) ** 2 / 10 + 2 * (x[1] - x[0] ** 2) ** 2,
            (-1.2, 1.4),
        ),
    }
    return (losses,)


@app.cell
def _sliders(losses, mo):
    problem = mo.ui.dropdown(list(losses), value="a narrow bowl", label="loss")
    b1 = mo.ui.slider(0.5, 0.99, 0.01, value=0.9, show_value=True, label="first-moment decay b1")
    b2 = mo.ui.slider(0.5, 0.999, 0.001, value=0.99, show_value=True, label="second-moment b2")
    log_rate = mo.ui.slider(-3, -0.5, 0.05, value=-1.5, show_value=True, label="log₁₀ η")
    weight_decay = mo.ui.slider(0, 2, 0.05, value=0.0, show_value=True, label="weight decay λ")
    mo.vstack([problem, b1, b2, log_rate, weight_decay])
    return b1, b2, log_rate, problem, weight_decay


@app.cell
def _settings(b1, b2, log_rate, problem, weight_decay):
    settings = {
        "b1": b1.value,
        "b2": b2.value,
        "learning_rate": 10**log_rate.value,
        "weight_decay": weight_decay.value,
    }
    chosen = problem.value
    return chosen, settings


@app.cell
def _races(ct, jax, jnp, losses):
    STEPS = 200

    def race_on(name):
        loss, start = losses[name]

        @jax.jit  # the decays are traced: a slider's next value compiles nothing
        def race(settings):
            flow = ct.AdamFlow(**settings)
            through = ct.InterpolatingFlow(flow.optimizer)
            options = {"throw": False, "max_solver_steps": 4000}
            adam = ct.run(flow, loss, jnp.array(start), STEPS).params
            ode = ct.solve(flow, loss, jnp.array(start), STEPS, **options).params
            # One discrete step first: at step 0 the moments jump.
            inter = ct.solve(through, loss, jnp.array(start), STEPS - 1, warm_steps=1, **options)
            return {
                "Adam": adam,
                "the ODE": ode,
                "the interpolating flow": jnp.concatenate([adam[:1], inter.params]),
            }

        return race

    races = {name: race_on(name) for name in losses}
    return (races,)


@app.cell
def _race(chosen, np, races, settings):
    paths = {name: np.asarray(path) for name, path in races[chosen](settings).items()}
    travelled = float(np.abs(paths["Adam"] - paths["Adam"][0]).max())
    errors = {
        name: float(np.abs(path - paths["Adam"]).max()) / travelled
        for name, path in paths.items()
        if name != "Adam"
    }
    return errors, paths


@app.cell
def _advice(ct, errors, mo, settings):
    rows = "\n".join(
        f"| {name} | {'left the finite numbers, or its budget' if e != e else f'{e:.1e}'} |"
        for name, e in errors.items()
    )
    told = str(ct.advise(settings["b1"], settings["b2"], steps=200)).replace("\n", "\n\n")
    mo.md(f"| | largest error over the distance travelled |\n|---|---|\n{rows}\n\n{told}")


@app.cell
def _figure(OKABE_ITO, chosen, jax, jnp, losses, np, paths, plt, style):
    def contour(axes):
        every = np.concatenate([path[np.isfinite(path).all(1)] for path in paths.values()])
        low, high = every.min(0), every.max(0)
        room = 0.15 * (high - low) + 0.1
        xs, ys = (np.linspace(low[i] - room[i], high[i] + room[i], 120) for i in (0, 1))
        points = jnp.stack(jnp.meshgrid(xs, ys), -1)
        values = jax.vmap(jax.vmap(losses[chosen][0]))(points)
        axes.contour(
            xs, ys, np.log(values + 1e-3), 14, colors="0.8", linewidths=0.7, linestyles="-"
        )

    looks = {
        "Adam": {"marker": ".", "linestyle": "none", "color": OKABE_ITO["black"]},
        "the ODE": {"color": OKABE_ITO["blue"]},
        "the interpolating flow": {"color": OKABE_ITO["vermilion"], "linestyle": "--"},
    }
    with style():
        figure, (map_axes, error_axes) = plt.subplots(1, 2, figsize=(9, 3.8))
        contour(map_axes)
        for name, path in paths.items():
            map_axes.plot(*path.T, label=name, **looks[name])
            if name != "Adam":
                apart = np.abs(path - paths["Adam"]).max(1, initial=1e-12)
                error_axes.semilogy(
                    np.where(apart > 1e-12, apart, np.nan), label=name, **looks[name]
                )
        map_axes.set(xlabel="first parameter", ylabel="second parameter")
        map_axes.legend()
        error_axes.set(xlabel="step", ylabel="largest distance from Adam")
        error_axes.legend()
    figure
    return (figure,)


if __name__ == "__main__":
    app.run()
