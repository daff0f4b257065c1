"""What the metrics of a window tell about a training that goes wrong."""

from collections.abc import Mapping

from mq_jax.evaluation.code_use import Codebook, few_codes

# Beyond these, averages over a window.
DOMINANT = 0.98  # accuracy on both sides
GUESSING = 1.02  # sum of the two accuracies; 1 is chance
CAPPED = 0.1  # share of steps


class Watch:
    """Tells what begins to be wrong with a run, once.

    Args:
      codebook: of the run.
      warm: steps over which the learning rate warms up.
      every: steps of a window.
    """

    def __init__(self, codebook: Codebook, warm: int, every: int):
        self._codebook, self._warm, self._every = codebook, warm, every
        self._ailing = set()

    def begun(self, step: int, row: Mapping[str, float], drawn: int) -> list[str]:
        """The ailments that the window before did not have.

        Args:
          step: at the end of the window.
          row: logged metrics of the window.
          drawn: number of codes in it.

        Returns:
          Sentences.
        """
        begin = (step - 1) // self._every * self._every
        found = ailments(row, self._codebook if begin >= self._warm else None, drawn)
        new = [found[ailment] for ailment in found if ailment not in self._ailing]
        self._ailing = set(found)
        return new


def ailments(
    row: Mapping[str, float], codebook: Codebook | None = None, drawn: int = 0
) -> dict[str, str]:
    """Names and describes what is wrong, each with what to do about it.

    Args:
      row: logged metrics of a window, averages by name.
      codebook: of the run; None while its learning rate warms up.
      drawn: number of codes in the window.

    Returns:
      Sentences by ailment: `few` codes in use; `dominant`, `guessing` and `capped` of a
      discriminator that learns; empty for a healthy run.
    """
    found = {}
    if codebook is not None:
        use = row["inner/usage"], row["inner/perplexity"]
        if sentence := few_codes(codebook, *use, drawn):
            found["few"] = sentence
    return found | _adversarial(row) if row.get("disc/trains") == 1 else found


def _adversarial(row):
    """What is wrong between the auto-encoder and its discriminator."""
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
