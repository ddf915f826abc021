"""`ct-adam sweep`: any grid of hyperparameters, kept on disk."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..sweep import opened
from ..sweep.configured import SweepConfig, config_from, read_config, sweep_of
from ..sweep.layout import is_sweep, root_attributes
from ..sweep.pilot import describe_estimate, estimate
from ..sweep.report import describe_sweep, summary
from ..sweep.store import writable_folder
from .told import tell

_note = partial(tell, "sweep")


def defaults(argv: Sequence[str]) -> tuple[SweepConfig, Path]:
    """Configuration and store before the flags: those of --file or --resume, if there is one."""
    file, resumed = _value(argv, "--file"), _value(argv, "--resume")
    if resumed is not None:
        for flag in ("--file", "--out"):
            if _value(argv, flag) is not None:
                raise ValueError(f"--resume takes the store's own settings and place: drop {flag}.")
        attributes = root_attributes(Path(resumed))
        if not is_sweep(attributes) or attributes["config"] == "{}":
            raise ValueError(f"{resumed} was not made by ct-adam sweep: run what made it.")
        return config_from(json.loads(attributes["config"])), Path(resumed)
    config = SweepConfig() if file is None else read_config(Path(file))
    return config, Path("out/sweep.zarr")


def _value(argv: Sequence[str], flag: str) -> str | None:
    for at, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag and at + 1 < len(argv):
            return argv[at + 1]
    return None


def command(argv: Sequence[str]) -> Any:
    """The command, with the defaults that `argv` names."""
    config_default, out_default = defaults(argv)

    def sweep(
        config: Annotated[SweepConfig, tyro.conf.arg(name="")] = config_default,
        out: Path = out_default,
        file: Path | None = None,
        resume: Path | None = None,
        dry_run: bool = False,
        json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
        netcdf: Path | None = None,
        workers: int = 0,
        scheduler: str | None = None,
    ) -> None:
        """Sweep hyperparameters over a grid, into a store that survives Ctrl-C and kill -9.

        Hyperparameters and seeds are numbers with commas, or axes: linear:START:STOP:NUM,
        log:START:STOP:NUM, 1-log:START:STOP:NUM (evenly in ln(1 - value)), cells:LOW:HIGH:NUM
        (centres of cells), seeds:NUM. The same call, or --resume STORE, goes on where it stopped.
        ct.open(STORE) gives the labelled dataset.

        Args:
            config: what to sweep over what
            out: the store, a folder (zarr v3)
            file: TOML file with these settings; flags go before it
            resume: store of an earlier call, whose settings are taken
            dry_run: run a few lanes, and say what the whole would cost
            json_: print one JSON object in place of text
            netcdf: write the finished dataset to this file too
            workers: processes of a local Dask cluster
            scheduler: address of a Dask scheduler, tcp://host:port, or its scheduler file
        """
        del file, resume  # they were read before the flags
        if netcdf is not None:
            writable_folder(netcdf.parent, "--netcdf")
        made = sweep_of(config)
        if dry_run:
            if not json_:
                _note("compiling, and running a few lanes …")
            found = estimate(made, out)
            text = describe_estimate(found, max(workers, 1), made.refine is not None)
            print(json.dumps(asdict(found)) if json_ else text)
            return
        try:
            dataset = made.run(
                out, workers=workers, scheduler=scheduler, progress=not json_, notice=_note
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_stopped(out)) from None
        if netcdf is not None:
            _export(dataset, netcdf)
        print(json.dumps(summary(dataset)) if json_ else describe_sweep(dataset))
        if not json_:
            print(f"\nWrote {out}" + (f" and {netcdf}." if netcdf is not None else "."))

    return sweep


def _stopped(store: Path) -> str:
    try:
        attributes = opened.open(store, check=False).attrs
    except (ValueError, OSError):
        return "stopped before the first tile."
    kept = f"{attributes['tiles_done']} of {attributes['tiles']} tiles are kept in {store}"
    return f"stopped; {kept}. Go on with: ct-adam sweep --resume {shlex.quote(str(store))}"


def _export(dataset: Any, path: Path) -> None:
    try:
        dataset.to_netcdf(path, engine="h5netcdf")
    except (ImportError, ModuleNotFoundError):
        raise ValueError(
            "--netcdf needs h5netcdf: pip install '.[netcdf]' in ct_adam's repository."
        ) from None
    except OSError as error:
        raise OSError(
            f"Cannot write {path} ({error.strerror or error}): the store is complete; name another "
            "file with --netcdf."
        ) from None
