"""Where compiled programs are kept between runs."""

import os
import sys
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, so that only a machine's first run waits for them.

    In the user's cache folder (``~/.cache/mairl/jax`` on Linux), unless a folder was already
    chosen by ``JAX_COMPILATION_CACHE_DIR`` or in JAX's configuration.
    """
    if jax.config.values.get("jax_compilation_cache_dir") is None:
        jax.config.update("jax_compilation_cache_dir", str(_cache_folder() / "mairl" / "jax"))
        # JAX looks for a folder only once, at its first compilation, which may have been.
        compilation_cache.reset_cache()
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Many small programs make up a start-up; by default only those over a second are kept.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
