"""Trains, evaluates and exports image tokenizers, trains priors and draws from them: flags.

python -m mq_jax.main --config=configs/photos_mqvae.py --workdir=DIR
python -m mq_jax.main --workdir=DIR
python -m mq_jax.main --workdir=DIR --mode=evaluate|export|report
python -m mq_jax.main --workdir=DIR --mode=export --formats=diffusers,taming,pytorch
python -m mq_jax.main --workdir=DIR --mode=import --from=FILE [--format=NAME]
python -m mq_jax.main --workdir=DIR --mode=evaluate --images=FOLDER [--size=N] [--name=NAME]
python -m mq_jax.main --mode=evaluate --compare DIR DIR ...
python -m mq_jax.main --mode=evaluate --samples=FILE_OR_FOLDER --config=configs/X.py [--split=S]
python -m mq_jax.main --mode=report DIR DIR ... --output=FILE
python -m mq_jax.main --config=configs/photos_mqvae.py --mode=plan [--devices=N] [--images=N]
python -m mq_jax.main --mode=compare --suite=configs/suites/NAME.py --workdir=DIR [--dry_run]
python -m mq_jax.main --mode=compare --workdir=DIR
python -m mq_jax.main --config=configs/photos_prior.py --workdir=DIR --config.tokens=TOKENIZER
python -m mq_jax.main --workdir=DIR --mode=tokens --output=TOKENS [--split=S] [--views=center,flip]
python -m mq_jax.main --workdir=DIR --mode=sample --count=N [--classes=0,3] [--guidance=S]
python -m mq_jax.main --mode=prepare --from=cifar-10-python.tar.gz --output=TFDS

The second goes on with the run in DIR, from its config.json; --config=DIR/config.json begins
another run like it.
Several processes find each other by the environment; mq_jax/devices/distributed.py says how.
"""

import sys

if __name__ == "__main__":
    # Before the slow imports: Ctrl-C in them is no reason for a traceback.
    from mq_jax.devices.interrupt import end_quietly
    from mq_jax.devices.memory import keep_memory
    from mq_jax.devices.sources import note_sources

    end_quietly()
    # Before them, too: the first may begin the program once more, the second is of what they read.
    keep_memory()
    note_sources()

from absl import flags
from ml_collections import config_flags

from mq_jax import commandline
from mq_jax.devices.memory import collect_seldom
from mq_jax.terminal.streams import protect_streams

MODES = (
    *("train", "evaluate", "export", "import", "report", "plan", "compare", "tokens", "sample"),
    "prepare",
)

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment, configs/X.py, or the config.json of a run; absent: that of the workdir.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, for all its outputs.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_METRICS = flags.DEFINE_string(
    "metrics",
    "all",
    "evaluate: of ssim, lpips_alex, lpips_vgg and fid or frechet_vgg, divided by commas. "
    "evaluate --samples: of gfid, sfid, inception_score, precision, recall and frechet_vgg, "
    "precision_vgg, recall_vgg.",
)
_WEIGHTS_DIR = flags.DEFINE_string(
    "weights_dir", "", "Folder of the Inception weights for fid; empty: this program's cache."
)
_DOWNLOAD_WEIGHTS = flags.DEFINE_bool(
    "download_weights", False, "Fetches the Inception weights, 96 MB, where they are missing."
)
_COMPARE = flags.DEFINE_bool(
    "compare", False, "evaluate: puts the evaluations of the folders that follow side by side."
)
_UNLIKE = flags.DEFINE_bool("unlike", False, "evaluate --compare: also where the protocols differ.")
_STEP = flags.DEFINE_integer(
    "step", None, "evaluate, export, sample: this checkpoint instead of the best.", lower_bound=0
)
_NAME = flags.DEFINE_string(
    "name", None, "evaluate: of a folder of its own, DIR/evaluations/NAME, for what is left."
)
_SIZE = flags.DEFINE_integer(
    "size", None, "evaluate: side to which images are scaled and cropped, pixels.", lower_bound=1
)
_SAMPLES = flags.DEFINE_string(
    "samples",
    "",
    "evaluate: generated images, a folder or an .npz file with arr_0, to be measured against the "
    "configuration's data or --reference.",
)
_FROM = flags.DEFINE_string(
    "from",
    "",
    "import: a tokenizer that others have trained, a file or the folder of a model. prepare: the "
    "archive, cifar-10-python.tar.gz, cifar-10-binary.tar.gz or img_align_celeba.zip.",
)
_FORMAT = flags.DEFINE_string(
    "format",
    "",
    "import: taming, ibq, llamagen, janus, diffusers or maskgit; empty: as the file's names say.",
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "export, tokens: replaces an export, a token set that is there."
)
_FORMATS = flags.DEFINE_string(
    "formats",
    "",
    "export: for other programs, beside ours; of diffusers, taming and pytorch, divided by commas.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "report: the file; empty: report.html in the folder of the only run. tokens: folder of the "
    "token set. evaluate --samples: folder of evaluation.json; empty: that of the samples. sample: "
    "folder of the samples; empty: samples in that of the run. "
    "prepare: TFDS's data_dir; empty: TFDS's default.",
)
_PARTITION = flags.DEFINE_string(
    "partition", "", "prepare: CelebA's list_eval_partition.txt; empty: beside the archive."
)
_SPLIT = flags.DEFINE_string(
    "split",
    "",
    "tokens: of the data; empty: the run's training split, of --images all. evaluate --samples: of "
    "the reference; empty: the training split.",
)
_VIEWS = flags.DEFINE_string(
    "views",
    "center",
    "tokens: stored of each image, divided by commas: center (as in evaluation), flip, ten-crop "
    "(at 1.1 and 1.05 times the side), ten-crop:RANGE, random:NUMBER.",
)
_SHARDS = flags.DEFINE_integer(
    "shards", 0, "tokens: number of files; 0: by the number of images.", lower_bound=0
)
_BEAM = flags.DEFINE_string(
    "beam", None, "tokens: makes them on Apache Beam, with these options of its pipeline."
)
_INTERRUPTED_CODE = flags.DEFINE_integer(
    "interrupted_code",
    0,
    "Exit code of a run that a signal ended, for a scheduler that shall start it again.",
    lower_bound=0,
    upper_bound=127,
)
_ACCEPT_CHANGED_DATA = flags.DEFINE_bool(
    "accept_changed_data", False, "train: goes on with other images than the run began with."
)
_DEVICES = flags.DEFINE_integer(
    "devices", 0, "plan: devices; 0: as many as config.mesh says, or 8.", lower_bound=0
)
_IMAGES = flags.DEFINE_string(
    "images",
    "",
    "plan, compare --dry_run: number of images that the inner level draws from; 0: look at the "
    "data. evaluate, tokens: a folder, of which all images are taken.",
)
_PEAK = flags.DEFINE_float(
    "peak_tflops", 0.0, "plan: TFLOP/s of a further kind of device.", lower_bound=0.0
)
_COMPILE = flags.DEFINE_bool(
    "compile", True, "plan: whether to compile, for temporary memory and collectives."
)
_SUITE = flags.DEFINE_string(
    "suite", "", "compare: the suite, configs/suites/X.py; empty: tables over the runs in workdir."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "compare: lists the runs, trains none.")
_COUNT_FLOPS = flags.DEFINE_bool(
    "count_flops",
    False,
    "compare --dry_run: predicts entries that were not measured by their FLOPs, seconds each; at "
    "least how long they take where none was.",
)
_SHARD = flags.DEFINE_string(
    "shard",
    "",
    "compare: I/N, 0/4 to 3/4 say: this part of the runs; empty: MQ_JAX_SHARD, "
    "SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX of MQ_JAX_SHARDS; without these, all.",
)
_REFERENCE = flags.DEFINE_string(
    "reference",
    "",
    "compare: the entry that others are compared with; empty: the suite's. evaluate --samples: "
    "images as they are, a folder or an .npz file, instead of the configuration's data.",
)
_COUNT = flags.DEFINE_integer("count", None, "sample: number of images.", lower_bound=1)
_CLASSES = flags.DEFINE_string(
    "classes",
    "",
    "sample: numbers of classes divided by commas, which take turns, all or none; empty: all that "
    "the prior knows.",
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "sample: of the draw.", lower_bound=0, upper_bound=2**32 - 1
)
_TEMPERATURE = flags.DEFINE_float("temperature", None, "sample: divides the logits; absent: 1.")
_TOP_K = flags.DEFINE_integer(
    "top_k", None, "sample: how many of the likeliest codes may be drawn; absent or 0: all."
)
_TOP_P = flags.DEFINE_float(
    "top_p", None, "sample: mass of the likeliest codes that may be drawn, after top_k; absent: 1."
)
_GUIDANCE = flags.DEFINE_float(
    "guidance", None, "sample: s of u + s (c - u), c of the class, u without it; absent: 1, none."
)
_GUIDANCE_SCHEDULE = flags.DEFINE_string(
    "guidance_schedule",
    None,
    "sample: how guidance grows over places or steps: constant (absent), linear or power-cosine.",
)
_GUIDANCE_POWER = flags.DEFINE_float(
    "guidance_power", None, "sample: of the schedule power-cosine; absent: 1."
)
_STEPS = flags.DEFINE_integer(
    "steps", None, "sample: in which a masked prior fills all places; absent: 12."
)
_CHOICE_NOISE = flags.DEFINE_float(
    "choice_noise",
    None,
    "sample: of a masked prior's choice of places, at the first step; absent: 4.5.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "sample: images drawn at once, over all devices; absent: 64.", lower_bound=1
)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", "", "sample: that made the prior's tokens; empty: where the run says."
)
_FLAGS = (
    *(_CONFIG, _WORKDIR, _MODE, _METRICS, _WEIGHTS_DIR, _DOWNLOAD_WEIGHTS, _COMPARE, _UNLIKE),
    *(_STEP, _NAME, _SIZE, _OVERWRITE, _FORMATS, _OUTPUT, _INTERRUPTED_CODE, _ACCEPT_CHANGED_DATA),
    *(_DEVICES, _IMAGES, _PEAK, _COMPILE, _SUITE, _DRY_RUN),
    *(_COUNT_FLOPS, _SHARD, _REFERENCE),
    *(_SPLIT, _VIEWS, _SHARDS, _BEAM, _SAMPLES, _FROM, _FORMAT, _PARTITION),
    *(_COUNT, _CLASSES, _SEED, _TEMPERATURE, _TOP_K, _TOP_P, _GUIDANCE, _GUIDANCE_SCHEDULE),
    *(_GUIDANCE_POWER, _STEPS, _CHOICE_NOISE, _BATCH_SIZE, _TOKENIZER),
)


def run() -> None:
    """Answers --help, or runs the mode that the command line asks for."""
    protect_streams()
    commandline.answer_help(__doc__, _FLAGS)
    collect_seldom()
    # Only now: help needs none of JAX.
    from mq_jax.modes.dispatch import run_program

    sys.exit(run_program())


if __name__ == "__main__":
    run()
