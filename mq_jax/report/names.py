"""What the logged names are called on the page, how their numbers look and how to read them."""

from typing import NamedTuple

from mq_jax.evaluation.code_use import USAGE


class Metric(NamedTuple):
    """A metric of an evaluation.

    Attributes:
      label: on the page.
      form: of its numbers.
      better: 1 where higher is better, -1 where lower is.
      reading: one sentence.
    """

    label: str
    form: str
    better: int
    reading: str


# By name without the prefix, in the order of the page.
METRICS = {
    "psnr": Metric(
        "PSNR, dB",
        "{:.2f}",
        1,
        "Each image's ratio of peak to error, averaged; 1 dB more is a fifth less squared error.",
    ),
    "mse": Metric("MSE", "{:.4f}", -1, "Mean squared error on [-1, 1]: 4 times that on [0, 1]."),
    "ssim": Metric(
        "SSIM",
        "{:.4f}",
        1,
        "Likeness of local means, contrasts and structures; 1 for equal images.",
    ),
    "lpips": Metric("LPIPS", "{:.4f}", -1, "Distance in a network's features; 0 for equal images."),
    "lpips_alex": Metric(
        "LPIPS AlexNet", "{:.4f}", -1, "Distance in AlexNet's features; 0 for equal images."
    ),
    "lpips_vgg": Metric(
        "LPIPS VGG", "{:.4f}", -1, "Distance in VGG16's features; 0 for equal images."
    ),
    "fid": Metric(
        "rFID",
        "{:.3f}",
        -1,
        "Fréchet distance of reconstructions to originals; falls with more images.",
    ),
    "frechet_vgg": Metric(
        "Fréchet VGG",
        "{:.3f}",
        -1,
        "Fréchet distance in VGG16's features; not to be compared with FID.",
    ),
    "gfid": Metric(
        "gFID",
        "{:.3f}",
        -1,
        "Fréchet distance of generated images to a data set, as ADM's evaluator measures it.",
    ),
    "sfid": Metric(
        "sFID", "{:.3f}", -1, "As gFID, in features that know where in the image they are."
    ),
    "inception_score": Metric(
        "Inception score",
        "{:.2f}",
        1,
        "How certain a classifier is of each generated image, and how varied over all of them.",
    ),
    "precision": Metric(
        "Precision", "{:.4f}", 1, "Share of generated images that lie among those of the data."
    ),
    "recall": Metric(
        "Recall", "{:.4f}", 1, "Share of the data's images that lie among the generated ones."
    ),
    "precision_vgg": Metric(
        "Precision VGG", "{:.4f}", 1, "Precision in VGG16's features; not to be compared with it."
    ),
    "recall_vgg": Metric(
        "Recall VGG", "{:.4f}", 1, "Recall in VGG16's features; not to be compared with it."
    ),
    "usage": Metric(
        "Usage", f"{{:{USAGE}}}", 1, "Share of codes that occur at all in the evaluation set."
    ),
    "perplexity": Metric(
        "Perplexity", "{:.1f}", 1, "As many equally frequent codes would carry as much information."
    ),
    "nats_per_token": Metric(
        "Nats per token", "{:.4f}", -1, "Mean of -ln p of a token; ln K for a guess."
    ),
    "bits_per_token": Metric("Bits per token", "{:.4f}", -1, "In bits; log2 K for a guess."),
    "nats_per_pixel": Metric(
        "Nats per pixel", "{:.5f}", -1, "Of all tokens of an image, over its pixels."
    ),
    "bits_per_pixel": Metric(
        "Bits per pixel", "{:.5f}", -1, "Of all tokens of an image, over its pixels."
    ),
}

PREFIXES = {
    "eval": "Evaluation",
    "inner": "Inner level: the auto-encoder",
    "outer": "Outer level: the codebook",
    "disc": "Discriminator",
    "prior": "Prior",
    "train": "Speed",
}

# By logged name, or by what follows the prefix.
READINGS = {
    "loss": "The whole objective, all terms with their weights; a mean over each window.",
    "reconstruction": "The reconstruction term alone, before weighting.",
    "quantization": "The quantizer's own loss; of the kinds vq, l2, cvq and ema the weighted mean "
    "squared distance of encodings to their codewords, which should stay small beside the "
    "encodings' own variance.",
    "attraction": "The pull between encodings and codewords, of a quantizer with further terms.",
    "wasserstein": "Distance of codewords and encodings as two clouds: 0 where both lie alike.",
    "entropy": "Mean entropy of a code less that of all: lower is more decided and more even.",
    "kl": "Distance of each position's distribution over codes from the uniform one.",
    "commitment": "Mean squared distance of encodings to their codes.",
    "soft": "Mean squared distance of encodings to the mixture of codewords that they draw from.",
    "hard": "Mean squared distance of encodings to the codeword that was drawn.",
    "token_entropy": "How undecided each code is, in nats: it should become small.",
    "batch_entropy": "How evenly all codes are used, in nats: it should stay large.",
    "negative_entropy": "An image's sum of how decided its codes are: near 0 they are certain.",
    "regularisation": "An image's squared distance to its codes, over twice the variance.",
    "perceptual": "LPIPS as a term of the loss, before weighting.",
    "adversarial": "The discriminator's verdict on reconstructions as a loss: lower fools it more.",
    "adaptive_weight": "Ratio of gradient norms at the decoder's last layer that balances the "
    "adversarial term; at its cap the adversarial gradient has vanished.",
    "adaptive_clipped": "Share of steps with the adaptive weight at its cap; healthy: 0.",
    "outer/solve_residual": "What is left of the Hessian's system, over its right side: near 0 it "
    "is solved; above 1 the solution is worse than none.",
    "disc/loss": "Near 0 the discriminator has won and teaches little.",
    "disc/accuracy_real": "Share of patches of images that it takes for real; with fakes at 100%, "
    "it has won.",
    "disc/accuracy_fake": "Share of patches of reconstructions that it recognises; where both "
    "accuracies add to 100%, it guesses.",
    "disc/weight": "Weight of the adversarial term, ramp included.",
    "disc/trains": "1 while the discriminator learns.",
    "learning_rate": "Warm-up and schedule included; a mean over each window.",
    "gradient_norm": "Norm of the gradient before clipping; spikes come before divergence.",
    "train/images_per_second": "Images of the inner level per second, compilation and evaluations "
    "left out; dips are the machine's.",
    "train/input_wait": "Share of the time in which the loop waits for its next batch: well above "
    "0, reading holds the devices up; raise config.data.threads or workers.",
}


def label(name: str) -> str:
    """A logged name for people: "inner/gradient_norm" is "gradient norm"."""
    short = name.partition("/")[2] or name
    return METRICS[short].label if short in METRICS else short.replace("_", " ")


def reading(name: str) -> str:
    """How to read a logged name's curve; "" where nothing is to be said."""
    prefix, _, short = name.partition("/")
    if prefix == "eval" and short in METRICS:
        return METRICS[short].reading
    return READINGS.get(name, READINGS.get(short, ""))


def rank(name: str) -> int:
    """The place of a logged name among those of its prefix: losses first, unknown names last."""
    known = list(READINGS)
    short = name.partition("/")[2]
    return known.index(name if name in READINGS else short) if {name, short} & set(known) else 99


def number(name: str, value: float | None) -> str:
    """A metric's value as it is shown; a dash where there is none."""
    form = METRICS[name].form if name in METRICS else "{:.4g}"
    return "–" if value is None else form.format(value)
