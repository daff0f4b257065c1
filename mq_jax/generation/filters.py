"""Which codes may be drawn: temperature, then the k likeliest, then the likeliest of mass p."""

import jax
import jax.numpy as jnp


def filtered(
    logits: jax.Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> jax.Array:
    """Logits of the distribution that is drawn from, in that order.

    The nucleus (Holtzman et al., 2020) is the smallest set of the likeliest codes, among the k,
    whose mass reaches p. Of equal codes the lowest indices count as the likeliest.

    Args:
      logits: f32[..., K].
      temperature: above 0; divides the logits.
      top_k: of the codes; 0 for all.
      top_p: p in (0, 1].

    Returns:
      f32[..., K], -inf where a code may not be drawn.
    """
    logits = logits / temperature
    size = logits.shape[-1]
    kept = min(top_k, size) if top_k else size
    if kept == size and top_p >= 1:
        return logits
    # Sorted, the lower index first among equals.
    values, codes = jax.lax.top_k(logits, kept)
    if top_p < 1:
        mass = jax.nn.softmax(values, axis=-1)
        before = jnp.cumsum(mass, axis=-1) - mass
        # Rounding leaves no more than 0 before the likeliest.
        values = jnp.where(before.at[..., 0].set(0) < top_p, values, -jnp.inf)
    nothing = jnp.full_like(logits, -jnp.inf)
    return jnp.put_along_axis(nothing, codes, values, axis=-1, inplace=False)
