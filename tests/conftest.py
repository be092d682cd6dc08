"""Every test runs with shapes and types checked, and with JAX's strict modes on."""

from jaxtyping import install_import_hook

# Before the first import of mairl: every annotation is checked on every call (at trace time).
install_import_hook("mairl", "beartype.beartype")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from mairl.compilation import use_compilation_cache  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Programs here are tiny: compiling them costs far more than running them.
jax.config.update("jax_disable_most_optimizations", True)
use_compilation_cache()


@pytest.fixture
def double():
    """Double precision, for comparisons with finite differences."""
    with jax.enable_x64(True):
        yield lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)
