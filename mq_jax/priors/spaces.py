"""Which tokens a prior is of: those of its sets, or as its configuration says before they exist."""

from ml_collections import ConfigDict

from mq_jax.generation.space import TokenSpace
from mq_jax.priors.facts import TokenFacts
from mq_jax.tokensets.reading import TokenSet

_FIELDS = ("height", "width", "levels", "size", "classes")


def space_of(config: ConfigDict, tokens: TokenSet, eval_tokens: TokenSet) -> TokenSpace:
    """The space of two sets that belong together.

    Args:
      config: validated; what its section space says must hold.
      tokens: that are trained on.
      eval_tokens: that validate.

    Returns:
      A TokenSpace; without classes where the configuration or the tokens have none.

    Raises:
      ValueError: the sets are of different tokenizers, shapes or classes, or not as the
        configuration says.
    """
    for name in ("tokenizer", "size", "shape", "downsampling", "class_names"):
        here, there = getattr(tokens, name), getattr(eval_tokens, name)
        if here != there:
            raise ValueError(
                f"The tokens to train on and those that validate differ in {name}: "
                f"{_short(here)} and {_short(there)}; expected two splits under one tokenizer."
            )
    height, width, *_ = tokens.shape
    classes = tokens.classes if config.prior.conditional else 0
    space = TokenSpace(height, width, tokens.depth or 1, tokens.size, classes)
    for name in _FIELDS:
        declared, found = config.space[name], getattr(space, name)
        if name == "classes" and not config.prior.conditional:
            continue
        if declared and declared != found:
            raise ValueError(
                f"config.space.{name} is {declared}, and the tokens have {found}; expected these, "
                "or 0 for whatever they have."
            )
    return space


def facts_of(space: TokenSpace, tokens: TokenSet) -> TokenFacts:
    """What a run notes of its tokens.

    Args:
      space: of the prior, from space_of.
      tokens: that are trained on.

    Returns:
      A TokenFacts.
    """
    names = tokens.class_names[: space.classes]
    return TokenFacts(space, tokens.tokenizer, tokens.downsampling, names)


def declared_space(config: ConfigDict) -> TokenSpace:
    """The space that a configuration says, for those who have no tokens.

    Args:
      config: validated.

    Returns:
      A TokenSpace.

    Raises:
      ValueError: it does not say it.
    """
    for name in _FIELDS[:-1]:
        if not config.space[name]:
            raise ValueError(
                f"config.space.{name} is 0, whatever the tokens have, and there are none to look "
                "at; give it, or config.tokens, the folder of a token set."
            )
    fields = {name: config.space[name] for name in _FIELDS}
    return TokenSpace(**{**fields, "classes": fields["classes"] * config.prior.conditional})


def _short(value):
    text = str(value)
    return text if len(text) < 100 else f"{text[:97]}..."
