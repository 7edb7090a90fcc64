"""`tritloom llama`: llama.cpp with a device for its ternary products."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tritloom.gen.cli.options import Help, add_command, add_group, existing_folder, path
from tritloom.gen.cli.text import pairs, print_json, say
from tritloom.rtl.spec.errors import InputError, ToolError
from tritloom.rtl.spec.llama import CODES, DEVICE, VERIFY

__all__ = ["add"]

GROUP = Help(
    summary="let llama.cpp compute its ternary products on a device",
    text="""\
llama.cpp loads a back end of ours, which computes the matrix products with TQ1_0, TQ2_0 and Q2_0
weights on a device. All else stays with llama.cpp: tokenizer, attention, sampling, server.
""",
    examples="""
  tritloom llama build --ggml llama.cpp
  tritloom llama run -- llama-completion -m model.gguf -p "Emma was"
""",
    prints="",
)
BUILD = Help(
    summary="compile the back end",
    text="""\
Compiles the back end against the headers of the ggml that will load it. It refuses any other ggml.
""",
    examples="""
  tritloom llama build --ggml llama.cpp
  tritloom llama build --ggml llama.cpp/ggml -o libggml-tritloom.so
""",
    prints="""
The file that was written, and the version of ggml that it is for.

--json prints an object: backend, ggml_version.
""",
)
RUN = Help(
    summary="run a program of llama.cpp with a device",
    text="""\
Opens a device, serves it on a socket as `tritloom serve` does, and runs a program of llama.cpp with
the back end. If the program never used the device, that is an error: a llama.cpp whose CPU is built
in loads no other back end, and says nothing of it. Build it with -DGGML_BACKEND_DL=ON.

The program's options follow a double dash.
""",
    examples="""
  tritloom llama run -- llama-completion -m model.gguf -p "Emma was" -n 40
  tritloom llama run --device "sim?board=icebreaker" --codes token -- \\
      llama-server -m model.gguf
""",
    prints="""
What the program prints. The status is the program's, or 1 if it ended well without the device.

--json prints an object at the end: device, products, status.
""",
)


def add(commands: Any) -> None:
    """Declares the commands."""
    group = add_group(commands, "llama", GROUP)
    build = add_command(group, "build", BUILD, _build)
    build.add_argument(
        *("--ggml",),
        metavar="DIR",
        type=path,
        default=Path("llama.cpp"),
        help="sources of ggml or llama.cpp (llama.cpp)",
    )
    run = add_command(group, "run", RUN, _run, extra="sim")
    run.add_argument("--device", metavar="URL", default=DEVICE, help=f"the device ({DEVICE})")
    run.add_argument(
        *("--codes",),
        choices=CODES,
        default="block",
        help="block: codes as ggml makes them; token: as BitLinear, one scale a token (block)",
    )
    run.add_argument(
        *("--verify",),
        choices=VERIFY,
        default="first",
        help="products that the back end computes as well and compares (first)",
    )
    run.add_argument("program", metavar="PROGRAM", nargs="+", help="the program and its options")
    for parser, option in ((build, "-o"), (run, "--backend")):
        parser.add_argument(
            *((option, "--output") if option == "-o" else (option,)),
            metavar="FILE",
            type=path,
            default=None,
            dest="backend",
            help="the back end (libggml-tritloom.so)",
        )


def _build(options: argparse.Namespace) -> int:
    from tritloom.gen.flow.llama import build_backend
    from tritloom.rtl.spec.llama import LIBRARY

    backend = options.backend or Path(LIBRARY)
    existing_folder(backend, "--output")
    version = build_backend(options.ggml, backend)
    if options.json:
        print_json({"backend": str(backend), "ggml_version": version})
    else:
        print("\n".join(pairs([("back end", str(backend)), ("for ggml", version)])))
    return 0


def _run(options: argparse.Namespace) -> int:
    from tritloom.host.device import connect
    from tritloom.host.serve.thread import serving
    from tritloom.rtl.spec.llama import LIBRARY

    backend = options.backend or Path(LIBRARY)
    if not backend.is_file():
        raise InputError(f"{backend}: no such file; make it with tritloom llama build")
    with connect(options.device) as device, serving(device) as server:
        status = _program(options, backend, server.path)
        products = server.products
        if options.json:
            print_json({"device": options.device, "products": products, "status": status})
    if status == 0 and products == 0:
        raise ToolError(
            f"{options.program[0]} ended without one product on the device: it loads no back ends, "
            "or its model has no ternary weights"
        )
    if products:
        say(f"{products:,} products on {options.device}\n")
    return status


def _program(options: argparse.Namespace, backend: Path, socket: Path) -> int:
    """The status of the program; 128 and the signal's number if one ended it."""
    environment = os.environ | {
        "GGML_BACKEND_PATH": str(backend.absolute()),
        "TRITLOOM_SOCKET": str(socket),
        "TRITLOOM_CODES": options.codes,
        "TRITLOOM_VERIFY": options.verify,
    }
    sys.stdout.flush()
    try:
        status = subprocess.call(options.program, env=environment)
    except OSError as error:
        raise ToolError(f"{options.program[0]}: {error.strerror}") from error
    return status if status >= 0 else 128 - status
