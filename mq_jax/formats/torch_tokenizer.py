"""An image tokenizer of mq_jax in PyTorch: this file, a safetensors file, and nothing but torch.

    from torch_tokenizer import load_tokenizer

    tokenizer = load_tokenizer("tokenizer.safetensors")
    indices = tokenizer.encode(images)  # u8[B, 3, H, W] -> i64[B, h, w]
    decoded = tokenizer.decode(indices)  # u8[B, 3, H, W]

Modules have the names of the arrays in the file. Licence: Apache-2.0, that of mq_jax.
"""

import hashlib
import json
import math
import mmap
from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

# Encodings compared with all codewords at once.
ROWS = 2048

# The names of this file's parameters by those of the arrays.
NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def load_tokenizer(path):
    """The Tokenizer of `tokenizer.safetensors`, on the CPU, for evaluation; runs no code of it."""
    architecture, arrays = read_file(path)
    # Without memory or random numbers, since all that it has is in the file.
    with torch.device("meta"):
        tokenizer = Tokenizer(architecture)
    tokenizer.load_state_dict(state_dict(tokenizer, arrays), assign=True)
    return tokenizer.eval().requires_grad_(False)


class Tokenizer(nn.Module):
    """Images to codes and codes to images.

    `to` and `half` take the networks elsewhere; codes are compared in float32. Where a position has
    several codes, indices have them on a last axis: i64[B, h, w, J].
    """

    def __init__(self, architecture):
        super().__init__()
        model, dim = architecture["model"], architecture["codebook"]["dim"]
        plain = {"kind": "vq", "groups": 1, "depth": 1, "shared": False}
        quantizer = architecture.get("quantizer", plain)
        own = quantizer.get(quantizer["kind"], {})
        # Behind z come its log-variances, which training reads.
        width = dim * (2 if own.get("variance") == "III" else 1)
        if model["kind"] == "vqvae":
            self.encoder = vqvae_encoder(model, width)
            self.decoder = vqvae_decoder(model, dim)
            self.downsampling = 2 ** len(model["channels"])
        else:
            levels = vqgan_levels(model, architecture["data"]["image_size"])
            encoder, decoder = HALVES[model["kind"]]
            self.encoder, self.decoder = encoder(model, levels, width), decoder(model, levels, dim)
            self.downsampling = 2 ** (len(levels) - 1)
        self.codebook = make_quantizer(quantizer, own, architecture["codebook"])
        self.unit_pixels = model.get("unit_pixels", False)
        self.several = quantizer["groups"] > 1 or quantizer["depth"] > 1

    def encode(self, images):
        """u8[B, 3, H, W], or floats in [-1, 1] -> i64[B, h, w].

        Sides that are no multiples of the downsampling are padded by repeating the edge.
        """
        indices = self.codebook.encode(self.latents(images).movedim(1, -1))
        return indices if self.several else indices.squeeze(-1)

    def latents(self, images):
        """u8[B, 3, H, W], or floats in [-1, 1] -> z f32[B, channels, h, w], what is quantized."""
        x = images / 127.5 - 1 if images.dtype == torch.uint8 else images
        height, width = x.shape[-2:]
        padding = (0, -width % self.downsampling, 0, -height % self.downsampling)
        x = F.pad(x, padding, mode="replicate") if any(padding) else x
        x = (x + 1) / 2 if self.unit_pixels else x
        return self.encoder(x.to(self._dtype)).float()

    def pixels(self, indices):
        """i[B, h, w] -> f32[B, 3, H, W], nominally in [-1, 1], not clipped."""
        indices = indices if self.several else indices.unsqueeze(-1)
        z_q = self.codebook.decode(indices.long()).movedim(-1, 1)
        x = self.decoder(z_q.to(self._dtype)).float()
        return 2 * x - 1 if self.unit_pixels else x

    def decode(self, indices):
        """i[B, h, w] -> u8[B, 3, H, W]."""
        return ((self.pixels(indices).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def forward(self, images):
        """Reconstructs: u8[B, 3, H, W], or floats in [-1, 1] -> u8[B, 3, H, W]."""
        height, width = images.shape[-2:]
        return self.decode(self.encode(images))[..., :height, :width]

    @property
    def _dtype(self):
        return next(self.parameters()).dtype


# The file.


def read_file(path):
    """(architecture, float32 tensors by name), held against the fingerprint of the file."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:start])
        header = json.loads(entries.pop("__metadata__")["mq_jax"])
        version, architecture = header["version"], header["architecture"]
        digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
        arrays = {}
        for name, entry in sorted(entries.items()):
            shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
            place = {"count": math.prod(shape), "offset": start + begin}
            arrays[name] = torch.frombuffer(data, dtype=torch.float32, **place).reshape(shape)
            digest.update(f"\n{name} <f4 {shape}\n".encode() + data[start + begin : start + end])
        whole = digest.hexdigest() == header["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole tokenizer.safetensors of mq_jax.") from error
    if version not in (1, 2):
        raise ValueError(f"{path} is of version {version}; expected 1 or 2: export it again.")
    if not whole:
        raise ValueError(f"{path} is damaged or was edited; copy it again, or export it again.")
    return architecture, arrays


def state_dict(tokenizer, arrays):
    """The arrays under PyTorch's names, in PyTorch's layouts."""
    modules, state = dict(tokenizer.named_modules(remove_duplicate=False)), {}
    for name, array in arrays.items():
        path = name.removeprefix("theta/").removeprefix("batch_stats/").replace("/", ".")
        if path in modules:
            # A table, or residual levels that share theirs.
            tables = [own for own in modules if isinstance(modules[own], Table)]
            within = [own for own in tables if f"{own}.".startswith(f"{path}.")]
            state |= {f"{own}.codewords": array for own in within}
        else:
            parent, _, leaf = path.rpartition(".")
            state[f"{parent}.{NAMES.get(leaf, leaf)}"] = layout(modules[parent], array)
    return state


def layout(module, array):
    """An array of a module as PyTorch has it: channels before rows and columns."""
    if array.ndim < 4:
        return array
    if isinstance(module, nn.ConvTranspose2d):
        # PyTorch slides the kernel over the output, mq_jax over the input.
        return array.flip(0, 1).permute(2, 3, 0, 1).contiguous()
    return array.permute(3, 2, 0, 1).contiguous()


# Quantizers: z f32[..., channels] -> i64[..., J] and i64[..., J] -> z_q f32[..., D].


class Table(nn.Module):
    """K codewords; a code is the row with the lowest score, `unit` whether by angle."""

    def __init__(self, size, dim, unit=False):
        super().__init__()
        self.codewords, self.unit = nn.Parameter(torch.empty(size, dim)), unit

    def encode(self, z):
        z = z[..., : self.codewords.shape[1]]
        rows = z.reshape(-1, z.shape[-1])
        found = [self.scores(part).argmin(-1) for part in rows.split(ROWS)]
        return torch.cat(found).reshape(*z.shape[:-1], 1)

    def decode(self, indices):
        return self.codewords[indices.squeeze(-1)].float()


class Nearest(Table):
    def scores(self, z):
        codewords = self.codewords.float()
        if self.unit:
            z, codewords = F.normalize(z, dim=-1), F.normalize(codewords, dim=-1)
        return codewords.square().sum(-1) - 2 * z @ codewords.T


class Products(Table):
    def scores(self, z):
        return -z @ self.codewords.float().T


class Gumbel(Table):
    """Logits by a head of their own."""

    def __init__(self, size, dim):
        super().__init__(size, dim)
        self.head = nn.ParameterList([torch.empty(size, dim), torch.empty(size)])

    def scores(self, z):
        kernel, bias = (part.float() for part in self.head)
        return -(z @ kernel.T + bias)


class FSQ(nn.Module):
    """round(h tanh(z + s) - o) of each channel; the first is the lowest digit."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def encode(self, z):
        reach = [(level - 1) * (1 - 1e-3) / 2 for level in self.levels]
        offset = [0.0 if level % 2 else 0.5 for level in self.levels]
        shift = [math.tan(o / h) if o < h else 0.0 for o, h in zip(offset, reach, strict=True)]
        reach, offset, shift = map(z.new_tensor, (reach, offset, shift))
        halves, places = self._digits(z.device)
        digits = (reach * torch.tanh(z + shift) - offset).round().long() + halves
        return (digits * places).sum(-1, keepdim=True)

    def decode(self, indices):
        halves, places = self._digits(indices.device)
        levels = torch.tensor(self.levels, device=indices.device)
        return (indices // places % levels - halves) / halves

    def _digits(self, device):
        halves = [level // 2 for level in self.levels]
        places = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        return (torch.tensor(numbers, device=device) for numbers in (halves, places))


class Signs(nn.Module):
    """A bit of each channel, the first the lowest, whose values are a scale and its negative."""

    def __init__(self, bits, scale):
        super().__init__()
        self.bits, self.scale = bits, scale

    def encode(self, z):
        return ((z > 0) << torch.arange(self.bits, device=z.device)).sum(-1, keepdim=True)

    def decode(self, indices):
        bits = indices >> torch.arange(self.bits, device=indices.device) & 1
        return self.scale * (2.0 * bits - 1)


class Groups(nn.ModuleList):
    """Quantizers of equal slices of the channels."""

    def encode(self, z):
        parts = zip(self, z.chunk(len(self), -1), strict=True)
        return torch.cat([each.encode(part) for each, part in parts], -1)

    def decode(self, indices):
        parts = zip(self, indices.chunk(len(self), -1), strict=True)
        return torch.cat([each.decode(part) for each, part in parts], -1)


class Residual(nn.ModuleList):
    """Each level quantizes what those before it left over."""

    def encode(self, z):
        indices = []
        for level in self:
            indices.append(level.encode(z))
            z = z - level.decode(indices[-1])
        return torch.cat(indices, -1)

    def decode(self, indices):
        parts = zip(self, indices.chunk(len(self), -1), strict=True)
        return sum(level.decode(part) for level, part in parts)


# By kind, of its own fields, K and D.
KINDS = {
    "vq": lambda own, *shape: Nearest(*shape),
    "l2": lambda own, *shape: Nearest(*shape, unit=True),
    "cvq": lambda own, *shape: Nearest(*shape, unit=own["cosine"]),
    "ema": lambda own, *shape: Nearest(*shape),
    "sqvae": lambda own, *shape: Nearest(*shape),
    "gumbel": lambda own, *shape: Gumbel(*shape),
    "ibq": lambda own, *shape: Products(*shape),
    "fsq": lambda own, *shape: FSQ(own["levels"]),
    "lfq": lambda own, *shape: Signs(own["bits"], 1.0),
    "bsq": lambda own, *shape: Signs(own["bits"], own["bits"] ** -0.5),
}


def make_quantizer(quantizer, own, codebook):
    """The quantizer of an architecture: groups of residual levels of a kind."""
    groups, depth, make = quantizer["groups"], quantizer["depth"], KINDS[quantizer["kind"]]

    def levels():
        made = [make(own, codebook["size"], codebook["dim"] // groups) for _ in range(depth)]
        return Residual(made) if depth > 1 else made[0]

    return Groups(levels() for _ in range(groups)) if groups > 1 else levels()


# Networks.


def chain(layers):
    """Modules one after another, by (name, module); those without parameters need no name."""
    named = ((name or f"step_{i}", module) for i, (name, module) in enumerate(layers))
    return nn.Sequential(OrderedDict(named))


class LayerNorm(nn.LayerNorm):
    """Over channels."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Skip(nn.Sequential):
    """x and what its modules make of it."""

    def forward(self, x):
        return x + super().forward(x)


def normalised(model, width):
    """The last layer of an encoder, if it is one."""
    return [("LayerNorm_0", LayerNorm(width))] if model["layer_norm"] else []


# That of SQ-VAE (Takida et al., 2022).


def vqvae_blocks(model, width):
    """Residual blocks: x + BN(1x1(ReLU(BN(3x3(ReLU(x))))))."""
    for i in range(model["blocks"]):
        block = OrderedDict(
            step_0=nn.ReLU(),
            Conv_0=nn.Conv2d(width, width, 3, padding=1, bias=False),
            BatchNorm_0=nn.BatchNorm2d(width),
            step_1=nn.ReLU(),
            Conv_1=nn.Conv2d(width, width, 1, bias=False),
            BatchNorm_1=nn.BatchNorm2d(width),
        )
        yield f"ResidualBlock_{i}", Skip(block)


def vqvae_encoder(model, width):
    """f[B, 3, H, W] -> z f[B, width, h, w]."""
    channels, layers = model["channels"], []
    count, last = len(channels), channels[-1]
    for i, (inputs, outputs) in enumerate(zip([3, *channels], channels, strict=False)):
        layers += [
            (f"Conv_{i}", nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)),
            (f"BatchNorm_{i}", nn.BatchNorm2d(outputs)),
            ("", nn.ReLU()),
        ]
    layers += [(f"Conv_{count}", nn.Conv2d(last, last, 3, padding=1))]
    layers += [*vqvae_blocks(model, last), ("", nn.ReLU())]
    layers += [(f"Conv_{count + 1}", nn.Conv2d(last, width, 1)), *normalised(model, width)]
    return chain(layers)


def vqvae_decoder(model, dim):
    """z_q f[B, D, h, w] -> f[B, 3, H, W]."""
    inner = model["channels"][::-1]
    layers = [("Conv_0", nn.Conv2d(dim, inner[0], 1)), *vqvae_blocks(model, inner[0])]
    layers += [("", nn.ReLU()), ("Conv_1", nn.Conv2d(inner[0], inner[0], 3, padding=1, bias=False))]
    for i, (inputs, outputs) in enumerate(zip(inner, [*inner[1:], 3], strict=True)):
        head = i == len(inner) - 1
        up = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=head)
        layers += [(f"BatchNorm_{i}", nn.BatchNorm2d(inputs)), ("", nn.ReLU())]
        layers += [("head" if head else f"Upsample_{i}", up)]
    return chain(layers)


# That of VQGAN (Esser et al., 2021).


def vqgan_levels(model, side):
    """(width, attention or not) of each level, full resolution first."""
    widths = [model["channels"][0] * multiplier for multiplier in model["multipliers"]]
    return [(width, side >> i in model["attention"]) for i, width in enumerate(widths)]


def vqgan_encoder(model, levels, width):
    """f[B, 3, H, W] -> z f[B, width, h, w]."""
    norm, (inputs, *_) = group_norm(model), model["channels"]
    layers = [("Conv_0", nn.Conv2d(3, inputs, 3, padding=1))]
    for i, (outputs, attends) in enumerate(levels):
        if i > 0:
            layers += [(f"Conv_{i}", Downsample(inputs, inputs, 3, stride=2))]
        blocks, inputs = level(norm, model["blocks"], inputs, outputs, attends)
        layers += [(f"level_{i}", blocks)]
    layers += [("middle", middle(model, inputs)), ("GroupNorm_0", norm(inputs)), ("", nn.SiLU())]
    count, deep = len(levels), model["z_channels"]
    layers += [(f"Conv_{count}", nn.Conv2d(inputs, deep, 3, padding=1))]
    layers += [(f"Conv_{count + 1}", nn.Conv2d(deep, width, 1)), *normalised(model, width)]
    return chain(layers)


def vqgan_decoder(model, levels, dim):
    """z_q f[B, D, h, w] -> f[B, 3, H, W]."""
    norm, deep, inputs = group_norm(model), model["z_channels"], levels[-1][0]
    layers = [("Conv_0", nn.Conv2d(dim, deep, 1))]
    layers += [("Conv_1", nn.Conv2d(deep, inputs, 3, padding=1)), ("middle", middle(model, inputs))]
    for i, (outputs, attends) in reversed(list(enumerate(levels))):
        blocks, inputs = level(norm, model["blocks"] + 1, inputs, outputs, attends)
        layers += [(f"level_{i}", blocks)]
        if i > 0:
            number = len(levels) - 1 - i
            layers += [(f"NearestUpsample_{number}", NearestUpsample(inputs, inputs, 3, padding=1))]
    layers += [("GroupNorm_0", norm(inputs)), ("", nn.SiLU())]
    return chain([*layers, ("head", nn.Conv2d(inputs, 3, 3, padding=1))])


def group_norm(model):
    """The function from a width to its normalisation."""
    return lambda width: nn.GroupNorm(model["groups"], width, eps=1e-6)


def level(norm, count, inputs, outputs, attends):
    """(the blocks of a level, its width)."""
    blocks = []
    for _ in range(count):
        blocks += [ResidualBlock(norm, inputs, outputs)]
        blocks += [Attention(norm, outputs)] if attends else []
        inputs = outputs
    return numbered(blocks), inputs


def middle(model, width):
    """The blocks at the lowest resolution."""
    norm = group_norm(model)
    attention = [Attention(norm, width)] if model.get("middle_attention", True) else []
    first, last = (ResidualBlock(norm, width, width) for _ in range(2))
    return numbered([first, *attention, last])


def numbered(blocks):
    """Blocks one after another, named by class and place."""
    return chain([(f"{type(block).__name__}_{i}", block) for i, block in enumerate(blocks)])


class ResidualBlock(nn.Module):
    """x + conv(swish(GN(conv(swish(GN(x)))))), x through a 1x1 convolution where widths differ."""

    def __init__(self, norm, inputs, outputs):
        super().__init__()
        self.GroupNorm_0, self.GroupNorm_1 = norm(inputs), norm(outputs)
        self.Conv_0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.Conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        y = self.Conv_0(F.silu(self.GroupNorm_0(x)))
        return self.shortcut(x) + self.Conv_1(F.silu(self.GroupNorm_1(y)))


class Attention(nn.Module):
    """x + W_o softmax(q k^T / sqrt(C)) v over all positions, q, k, v from GN(x); one head."""

    def __init__(self, norm, width):
        super().__init__()
        self.GroupNorm_0 = norm(width)
        self.query, self.key, self.value, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        y = self.GroupNorm_0(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.out(mixed)


class Downsample(nn.Conv2d):
    """Padded at the right and at the bottom alone."""

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class NearestUpsample(nn.Conv2d):
    """Of twice the height and the width."""

    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


# That of MaskGIT (Chang et al., 2022), whose levels are those of VQGAN without attention.


def maskgit_encoder(model, levels, width):
    """f[B, 3, H, W] -> z f[B, width, h, w]."""
    norm, (inputs, *_) = group_norm(model), model["channels"]
    layers = [("Conv_0", nn.Conv2d(3, inputs, 3, padding=1, bias=False))]
    for i, (outputs, _) in enumerate(levels):
        layers += [("", nn.AvgPool2d(2))] if i > 0 else []
        layers += [(f"level_{i}", maskgit_level(model, inputs, outputs))]
        inputs = outputs
    layers += [("middle", maskgit_level(model, inputs, inputs))]
    layers += [("GroupNorm_0", norm(inputs)), ("", nn.SiLU())]
    return chain([*layers, ("Conv_1", nn.Conv2d(inputs, width, 1)), *normalised(model, width)])


def maskgit_decoder(model, levels, dim):
    """z_q f[B, D, h, w] -> f[B, 3, H, W]."""
    inputs = levels[-1][0]
    layers = [("Conv_0", nn.Conv2d(dim, inputs, 3, padding=1))]
    layers += [("middle", maskgit_level(model, inputs, inputs))]
    for i, (outputs, _) in reversed(list(enumerate(levels))):
        layers += [(f"level_{i}", maskgit_level(model, inputs, outputs))]
        inputs = outputs
        if i > 0:
            number = len(levels) - 1 - i
            layers += [(f"NearestUpsample_{number}", NearestUpsample(inputs, inputs, 3, padding=1))]
    layers += [("GroupNorm_0", group_norm(model)(inputs)), ("", nn.SiLU())]
    return chain([*layers, ("head", nn.Conv2d(inputs, 3, 3, padding=1))])


def maskgit_level(model, inputs, outputs):
    """The blocks of a level."""
    widths = [inputs, *[outputs] * model["blocks"]]
    return numbered([MaskGITBlock(group_norm(model), *pair) for pair in pairwise(widths)])


class MaskGITBlock(nn.Module):
    """y + W y where widths differ and x + y where not, y = conv(swish(GN(conv(swish(GN(x)))))."""

    def __init__(self, norm, inputs, outputs):
        super().__init__()
        self.GroupNorm_0, self.GroupNorm_1 = norm(inputs), norm(outputs)
        self.Conv_0 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.Conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x):
        y = self.Conv_0(F.silu(self.GroupNorm_0(x)))
        y = self.Conv_1(F.silu(self.GroupNorm_1(y)))
        return y + (x if self.shortcut is None else self.shortcut(y))


# Of the kinds of nets that are made of levels.
HALVES = {"vqgan": (vqgan_encoder, vqgan_decoder), "maskgit": (maskgit_encoder, maskgit_decoder)}
