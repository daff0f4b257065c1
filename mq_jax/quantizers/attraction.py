"""The term that draws encodings and codewords towards each other."""

import jax
import jax.numpy as jnp


def attraction(z: jax.Array, z_q: jax.Array, *, commitment: float, codebook: float) -> jax.Array:
    """max(a, b) mean((z - z_q)^2) whose gradient carries a to z and b to z_q.

    Equal weights stop no gradient: *which argument is differentiated* says who learns. Stopped
    on either side, the term would cut the indirect part of the hyper-gradient; so unequal
    weights are for a single level.

    Args:
      z: f32[..., D], encodings.
      z_q: f32[..., D], their codewords.
      commitment: a, of the pull on z.
      codebook: b, of the pull on z_q.

    Returns:
      f32[], a mean over positions and channels.
    """
    both = min(commitment, codebook)
    term = both * jnp.mean(jnp.square(z - z_q))
    if commitment > both:
        # The further pull is on z alone.
        fixed = jax.lax.stop_gradient(z_q)
        term += (commitment - both) * jnp.mean(jnp.square(z - fixed))
    if codebook > both:
        # The further pull is on the codewords alone.
        fixed = jax.lax.stop_gradient(z)
        term += (codebook - both) * jnp.mean(jnp.square(fixed - z_q))
    return term
