"""Every field of a prior's configuration, once, with its meaning; experiments override them.

Not an experiment itself. Where nothing else is said, the values are those of LlamaGen (Sun et al.,
2024).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults: an autoregressive transformer, trained at a constant rate."""
    config = ConfigDict()
    config.seed = 0  # of initialisation, order, views and dropout
    config.deterministic = False  # as in configs/base.py
    config.tokens = ""  # folder of a token set; or of a tokenizer, a run's or an export's, whose
    #                     tokens of `data` are then made first, in WORKDIR/tokens; free to move
    config.eval_tokens = ""  # folder of the token set that validates; "": that of data.eval_split
    #                          in WORKDIR/tokens, where tokens is of a tokenizer; free to move

    config.space = ConfigDict()  # what the tokens must be, for --mode=plan before there are any
    config.space.height = 0  # places of a column; 0: as the tokens have it, here and below
    config.space.width = 0  # places of a row
    config.space.levels = 0  # J, codes of a place
    config.space.size = 0  # K, values of a code
    config.space.classes = 0  # of images

    config.prior = ConfigDict()
    config.prior.kind = "autoregressive"  # autoregressive | masked (MaskGIT)
    config.prior.size = "tiny"  # tiny | B | L | XL
    config.prior.layers = 0  # of the trunk; 0: of that size, here and below
    config.prior.heads = 0  # of attention
    config.prior.width = 0  # of the residual stream
    config.prior.conditional = True  # whether on the class, where the tokens have any
    config.prior.class_dropout = 0.1  # probability that a training image has no class, for guidance
    config.prior.smoothing = 0.1  # of the labels, in training (masked)
    config.prior.qk_norm = False  # whether queries and keys are normalised
    config.prior.token_dropout = 0.1  # of the embedded tokens
    config.prior.residual_dropout = 0.1  # of what attention adds
    config.prior.ffn_dropout = 0.1  # of what the feed-forward layer adds
    config.prior.dtype = "float32"  # of products and activations: float32 | bfloat16; parameters,
    #                                 normalisations, softmax and logits are float32
    config.prior.remat = False  # whether to recompute layers instead of keeping them

    config.train = ConfigDict()
    config.train.steps = 0  # updates; 0: as many as `epochs` make
    config.train.epochs = 300  # passes over the images of the set, where steps is 0
    config.train.batch_size = 256  # images, over all devices, which divide it
    config.train.view = ""  # name of the stored view that is trained on; "": one drawn at a visit
    config.train.learning_rate = 1e-4  # peak
    config.train.schedule = "constant"  # constant | cosine, half a cosine to 0; after the warm-up
    config.train.warmup = 0.0  # share of the steps with a linear warm-up
    config.train.ema_decay = 0.0  # of the averages that evaluation then uses; 0: none kept
    config.train.accumulate = 1  # parts of a batch, of which one at a time is in memory
    config.train.log_every = 50  # steps between two lines of metrics
    config.train.eval_every = 1000  # steps between two evaluations, each with a checkpoint
    config.train.checkpoint_every = 1000  # steps between two further checkpoints
    config.train.patience = 0  # evaluations without a better one before stopping; 0: never

    config.optimizer = ConfigDict()  # Adam
    config.optimizer.b1 = 0.9  # decay of the first moment
    config.optimizer.b2 = 0.95  # decay of the second moment
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.05  # decoupled, of all but the scales of normalisations
    config.optimizer.clip = 1.0  # largest global gradient norm; 0: no clipping

    config.mesh = ConfigDict()  # free to change when a run goes on
    config.mesh.data = 0  # groups of devices with a whole state each; 0: all that is left
    config.mesh.fsdp = 1  # devices of a group, which share its parameters and optimizer states out
    config.mesh.shard_from = 2**16  # numbers in the smallest array that is shared out

    config.data = ConfigDict()  # what tokens are made of, where tokens is of a tokenizer
    config.data.source = ""  # tfds:NAME | folder | parquet | wds (tar shards) | photos
    config.data.dir = ""  # of the folder, or TFDS's data_dir ("": TFDS's default); free to move
    config.data.image_column = ""  # as in configs/base.py
    config.data.label_column = ""  # likewise
    config.data.train_split = "train"  # may end in a slice, train[:90%]
    config.data.eval_split = "validation"  # likewise; the centre view alone
    config.data.holdout = "hash"  # as in configs/base.py
    config.data.views = "center"  # stored of a training image, divided by commas: center, as in the
    #                               tokenizer's evaluation | flip | ten-crop | ten-crop:RANGE
    #                               | random:NUMBER
    config.data.max_bad_share = 0.01  # share of unreadable images that is left out, and no more
    config.data.max_pixels = 10**8  # of an image; larger ones count as unreadable
    config.data.max_bytes = 2**28  # of an image file, likewise; 0: any
    config.data.threads = 1  # reading threads, of images and of tokens; changes no result

    config.eval = ConfigDict()
    config.eval.batch_size = 64  # images of an evaluation batch, over all devices
    return config.lock()
