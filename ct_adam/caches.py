"""Where compiled programs are kept between processes: the user's cache folder."""

import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`ct_adam/kind` in the user's cache folder, or in that named by `CT_ADAM_CACHE`; a folder for
    this process alone where neither can be written."""
    import pooch

    wanted = Path(os.environ.get("CT_ADAM_CACHE", pooch.os_cache("ct_adam"))) / kind
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK):
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"ct_adam_{kind}_"))


def keep_compilations() -> None:
    """Lets JAX keep what it compiles, unless the user has told it where already."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
