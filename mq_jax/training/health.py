"""What the metrics of a window tell about an adversarial training that goes wrong."""

from collections.abc import Mapping

# Beyond these, averages over a window.
DOMINANT = 0.98  # accuracy on both sides
GUESSING = 1.02  # sum of the two accuracies; 1 is chance
CAPPED = 0.1  # share of steps


def ailments(row: Mapping[str, float]) -> dict[str, str]:
    """Names and describes what is wrong, each with what to do about it.

    Args:
      row: logged metrics of a window, averages by name.

    Returns:
      Sentences by ailment: `dominant`, `guessing` and `capped`; empty for a healthy run, for
      one without a discriminator, and before it learns.
    """
    if row.get("disc/trains") != 1:
        return {}
    real, fake = row["disc/accuracy_real"], row["disc/accuracy_fake"]
    accuracies = f"{real:.0%} of the patches of images and {fake:.0%} of those of reconstructions"
    found = {}
    if min(real, fake) > DOMINANT:
        found["dominant"] = (
            f"The discriminator is right on {accuracies}: it wins, and teaches little. Lower "
            "config.disc.learning_rate_ratio, or set config.discriminator.r1 or lecam."
        )
    if row["disc/weight"] > 0 and real + fake < GUESSING:
        found["guessing"] = (
            f"The discriminator is right on {accuracies}: it guesses, and its verdict is noise. "
            "Raise config.disc.learning_rate_ratio, or let it learn before its loss sets in "
            "(config.discriminator.train_from below start)."
        )
    if row.get("inner/adaptive_clipped", 0) > CAPPED:
        found["capped"] = (
            f"The adaptive weight was at its cap in {row['inner/adaptive_clipped']:.0%} of the "
            "steps: the adversarial gradient at the decoder's last layer vanishes. Lower "
            "config.discriminator.cap or weight, or regularise the discriminator."
        )
    return found
