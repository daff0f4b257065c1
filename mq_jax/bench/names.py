"""What a command line can name; a help waits for no import."""

PARTS = (
    "step",
    "operations",
    "unroll",
    "pieces",
    "lookup",
    "quantizers",
    "input",
    "startup",
    "tokenizer",
    "sampling",
    "checkpoint",
    "peers",
    "hypergradients",
)

# As algorithm/mq.py has them.
ESTIMATORS = (
    "all",
    "encoder",
    "encoder-and-codewords",
    "encoder-and-codewords-inside",
    "rotation",
    "diveq",
)
