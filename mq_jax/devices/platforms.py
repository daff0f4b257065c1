"""The platform that JAX computes on: named by JAX_PLATFORMS, there or not."""

import os

import jax


def require_platform() -> None:
    """Starts JAX's backend.

    Raises:
      ValueError: JAX_PLATFORMS names one that this machine does not have.
    """
    try:
        jax.devices()
    # JAX knows some names, of which it asserts that they are there.
    except (RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS")
        if not wanted:
            raise
        # Whatever JAX finds by itself.
        jax.config.update("jax_platforms", "")
        there = sorted({"cpu", *(device.platform for device in jax.devices())})
        raise ValueError(
            f"JAX_PLATFORMS is {wanted!r}, which JAX cannot start here; this machine has "
            f"{', '.join(there)}. Set JAX_PLATFORMS to that, or unset it."
        ) from error
