"""Parser of the commands and options."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from latentserve_client._base import DEFAULT_TIMEOUT_S
from latentserve_client._checks import to_ref
from latentserve_client._errors import InvalidArgument
from latentserve_client.load.plan.options import add_options as add_load_options

_EXAMPLES = """\
examples:
  latentserve models
  latentserve reconstruct --digits 10 --model mnist-ae --out reconstructed.png
  latentserve denoise --digits 3,1,4 --add-noise 0.5 --model mnist-dae --out denoised.png
  latentserve encode photo.png --out latents.npz
  latentserve decode --latents latents.npz --out decoded.png
  latentserve sample --count 20 --seed 7 --model mnist-vae --out samples.png
  latentserve load --mix encode=5,sample=3:count=16 --rate 200 --arrivals poisson --out load.html
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="latentserve",
        description="Command-line client of a latentserve server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common()
    images = _images()
    out = _out()

    def add(name: str, summary: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            parents=[*parents, common],
        )

    add("models", "list the models, or describe one with --model")
    encode = add("encode", "encode images to latents", images, out)
    _seed(encode, "sample the latents from q(z|x) with this seed, instead of the mean")
    decode = add("decode", "decode latents to images", out)
    decode.add_argument(
        "--latents",
        type=Path,
        required=True,
        metavar="FILE.npz",
        help="file with the array 'latents' [n, dim], as `encode --out` writes it",
    )
    add("reconstruct", "encode and decode images", images, out)
    denoise = add("denoise", "remove noise from images", images, out)
    denoise.add_argument(
        "--add-noise",
        type=_positive,
        metavar="SIGMA",
        help="first add Gaussian noise of this standard deviation to the images, assumed to be "
        "clean and in [0, 1], and clip the result",
    )
    _seed(denoise, "seed of the noise of --add-noise (default: 0)")
    sample = add("sample", "sample new images", out)
    sample.add_argument("--count", type=_count, default=10, help="number of images (default: 10)")
    _seed(sample, "seed; the same seed gives the same images (default: chosen by the server)")
    sample.add_argument(
        "--offset",
        type=_not_negative,
        default=0,
        help="first row of the stream of the seed (default: 0)",
    )
    sample.add_argument(
        "--temperature", type=float, help="below 1 samples closer to the mode (default: 1)"
    )
    add("health", "exit with code 0 only if the server, or the model of --model, is serving")
    reload = add("reload", "reload the model folder of the server")
    reload.add_argument("names", nargs="*", metavar="NAME", help="only these models (default: all)")
    add_load_options(add("load", "run a load test and report latencies and rates"))
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("server")
    group.add_argument(
        "--server",
        default=os.environ.get("LATENTSERVE_SERVER", "127.0.0.1:50051"),
        metavar="HOST:PORT",
        help="address (default: $LATENTSERVE_SERVER, currently %(default)s)",
    )
    group.add_argument(
        "--timeout-s",
        type=_positive,
        default=None,
        metavar="SECONDS",
        help=f"timeout of a call (default: {DEFAULT_TIMEOUT_S:g})",
    )
    group.add_argument(
        "--model",
        type=_model,
        metavar="NAME[:VERSION]",
        help="model (default: default model of the server), by default in its newest version",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object")
    security = common.add_argument_group("TLS and token")
    security.add_argument(
        "--tls",
        action="store_true",
        help="use TLS with the default certificate authorities of gRPC",
    )
    security.add_argument(
        "--tls-ca",
        type=Path,
        metavar="FILE",
        help="use TLS with these certificate authorities (PEM)",
    )
    security.add_argument("--tls-cert", type=Path, metavar="FILE", help="client certificate (PEM)")
    security.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="private key of the client certificate (PEM)"
    )
    security.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with the bearer token (default: environment variable LATENTSERVE_TOKEN)",
    )
    security.add_argument(
        "--allow-plaintext-token",
        action="store_true",
        help="send the token without TLS, if something else protects the connection",
    )
    return common


def _images() -> argparse.ArgumentParser:
    images = argparse.ArgumentParser(add_help=False)
    group = images.add_argument_group("images, one of")
    group.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="image files with the height and width of the model, unless --resize is given",
    )
    group.add_argument(
        "--resize", action="store_true", help="resize the files to the image size of the model"
    )
    group.add_argument(
        "--digits",
        metavar="N | 0,1,2",
        help="bundled MNIST test digits: the first N of 100, or one digit of each listed class",
    )
    group.add_argument(
        "--mnist", type=Path, metavar="DIR", help="MNIST test digits from a folder with IDX files"
    )
    group.add_argument(
        "--start", type=_not_negative, default=0, help="first digit of --mnist (default: 0)"
    )
    group.add_argument(
        "--count", type=_count, default=10, help="number of digits of --mnist (default: 10)"
    )
    return images


def _out() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write an image grid (.png) or the arrays (.npz)",
    )
    return out


def _seed(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--seed", type=_seed_value, help=text)


def _seed_value(text: str) -> int:
    return _integer(text, 0, 2**64 - 1)


def _count(text: str) -> int:
    return _integer(text, 1, 2**31 - 1)


def _not_negative(text: str) -> int:
    return _integer(text, 0, 2**62)


def _integer(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{number} is not from {low} to {high}")
    return number


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _model(text: str) -> str:
    try:
        to_ref(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(error.violations[0].description) from None
    return text
