"""What suites on two CPU cores share; not a suite itself."""

# Of CIFAR-10: 800 steps in minutes, evaluated on 2,000 test images.
QUICK = (
    "train.steps=800 train.learning_rate=3e-4 train.eval_every=400 train.checkpoint_every=400 "
    "data.eval_split=test[:2000]"
)

# The same without steps, for a budget of seconds.
QUICK_TIME = QUICK.replace("train.steps=800 ", "")

# z as the encoder gives it. Entries whose name begins with `ln-` are with LayerNorm.
PLAIN = "model.layer_norm=False"
NORMED = "model.layer_norm=True"

THREE = (0, 1, 2)
