"""Parser of `--mix`: kinds of calls with weights and options.

Example: `encode=5,sample=3:count=16:model=mnist-vae@2`. Commas separate the entries. An entry is a
call, its weight after `=` (default 1), and options after colons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from latentserve_client._checks import image_format
from latentserve_client._errors import InvalidArgument
from latentserve_client.load.plan.sizes import BadSize, SizeDistribution, parse_sizes

# Calls by their names in a mix. PLAIN_CALLS have no rows.
IMAGE_CALLS = ("encode", "reconstruct", "denoise")
SAMPLING_CALLS = ("sample", "stream")
PLAIN_CALLS = ("health", "models", "model", "reload")
CALLS = (*IMAGE_CALLS, "decode", *SAMPLING_CALLS, *PLAIN_CALLS)
# Calls of the Open Inference Protocol.
OIP_CALLS = ("infer",)

DTYPES = ("float32", "float16", "uint8", "png", "jpeg")
_LATENT_DTYPES = ("float32", "float16")
_ALIASES = {"count": "rows"}
# Options of each call.
_OPTIONS = {
    "encode": {"model", "rows", "dtype", "draw"},
    "reconstruct": {"model", "rows", "dtype", "format"},
    "denoise": {"model", "rows", "dtype", "format"},
    "decode": {"model", "rows", "dtype", "format"},
    "sample": {"model", "rows", "format", "temperature", "latents"},
    "stream": {"model", "rows", "format", "temperature", "latents", "chunk"},
    "infer": {"model", "rows"},
    "health": set(),
    "models": set(),
    "model": {"model"},
    "reload": set(),
}


class BadMix(ValueError):
    """A mix is malformed, or the models of the server do not support it."""


@dataclass(frozen=True, slots=True)
class MixEntry:
    """One kind of call in a mix."""

    call: str  # one of CALLS or OIP_CALLS
    weight: float = 1.0
    model: str | None = None  # NAME or NAME:VERSION; None: the default model
    rows: SizeDistribution = field(default_factory=lambda: parse_sizes("1"))
    dtype: str = "float32"  # data type or file format of the images or latents sent
    format: str = "float32"  # data type or file format of the images returned
    temperature: float | None = None
    latents: bool = False  # whether the reply includes the sampled latents
    draw: bool = False  # whether encode samples from q(z|x), with a seed
    chunk: int = 0  # images per stream message; 0: chosen by the server

    def label(self, model: str) -> str:
        """Return a label for the report: call, model, rows and options that are not the default."""
        if self.call in PLAIN_CALLS:
            return f"{self.call} {model}".rstrip()
        parts = [self.call, model, f"rows={self.rows.text}"]
        if self.call not in SAMPLING_CALLS and self.dtype != "float32":
            parts.append(self.dtype)
        if self.format != "float32":
            parts.append(f"format={self.format}")
        if self.draw:
            parts.append("draw")
        return " ".join(parts)


def parse_mix(text: str, protocol: str = "latentserve") -> tuple[MixEntry, ...]:
    """Return the entries. Raises BadMix, which names the wrong part and the expected syntax."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise BadMix(f"the mix is empty; expected calls like {EXAMPLE}")
    calls = OIP_CALLS if protocol == "oip" else CALLS
    return tuple(_entry(part, calls) for part in parts)


EXAMPLE = "encode=5,sample=3:count=16"


def _entry(text: str, calls: tuple[str, ...]) -> MixEntry:
    head, *options = text.split(":")
    call, equals, weight_text = head.partition("=")
    if call not in calls:
        raise BadMix(f"{text!r}: unknown call {call!r}; expected one of {', '.join(calls)}")
    values: dict[str, object] = {"call": call}
    if equals:
        values["weight"] = _number(weight_text, text, "weight")
    for option in options:
        name, equals, value = option.partition("=")
        name = _ALIASES.get(name, name)
        if not equals or name not in _OPTIONS[call]:
            known = ", ".join(sorted(_OPTIONS[call])) or "none"
            raise BadMix(f"{text!r}: {option!r} is not an option of {call}; its options: {known}")
        values[name] = _value(call, name, value, text)
    return MixEntry(**values)  # type: ignore[arg-type]  # each value was parsed by the name of its field


def _value(call: str, name: str, value: str, text: str) -> object:
    try:
        if name == "model":
            return value.replace("@", ":", 1)
        if name == "rows":
            return parse_sizes(value)
        if name == "format":
            image_format(value)
            return value
    except (BadSize, InvalidArgument) as error:
        raise BadMix(f"{text!r}: {name}: {getattr(error, 'message', error)}") from None
    if name == "dtype":
        allowed = _LATENT_DTYPES if call == "decode" else DTYPES
        if value not in allowed:
            raise BadMix(f"{text!r}: dtype {value!r}; expected one of {', '.join(allowed)}")
        return value
    if name in ("latents", "draw"):
        if value not in ("yes", "no"):
            raise BadMix(f"{text!r}: {name}={value}; expected yes or no")
        return value == "yes"
    number = _number(value, text, name)
    return int(number) if name == "chunk" else number


def _number(text: str, whole: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise BadMix(f"{whole!r}: {name} {text!r}; expected a number above 0")
    return number
