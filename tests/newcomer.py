"""Does what README.md says, command by command, in a fresh clone: `python -m tests.newcomer`.

The clone is of the commit that is checked out, and gets an environment of its own by `make serve`.
With `--packages-of VENV`, which may be the environment that runs this, the packages that lie there count as installed:
pip checks them, and fetches nothing but itself and what builds a wheel. Python's examples run in the Python that runs
this, which needs the packages of the extra `test`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from tests.examples import ADDRESS, Example, examples, reason_not_to_run
from tests.sources import ROOT

SERVE = "make serve"
PATIENCE_SECONDS = 900
"""How long the first start may take, with all that pip does."""
GRACE_SECONDS = 30
"""How long the server may take to stop before it is killed."""
NOT_OURS = re.compile(r"KW_|MAKE|MFLAGS|VIRTUAL_ENV|PYTHONPATH|PYTHONHOME")
"""Names of variables that a newcomer's shell does not have."""


def say(text: str) -> None:
    """Print at once, before what the commands print themselves."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def lend_packages(clone: Path, venv: Path, environment: dict[str, str]) -> None:
    """Make the clone's environment, as the Makefile makes it, with the packages of another one of the same Python."""
    subprocess.run(["make", ".venv/.made", f"PYTHON={venv / 'bin' / 'python'}"], cwd=clone, env=environment, check=True)
    (ours,) = clone.glob(".venv/lib/python*/site-packages")
    theirs = venv / ours.relative_to(clone / ".venv")
    if not theirs.is_dir():
        raise FileNotFoundError(f"there is no {theirs}: the Python of {venv} is another one")
    (ours / "zz-lent.pth").write_text(f"{theirs}\n", "utf-8")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a command that leads a process group, and whatever it has started; what does not end in time is killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)  # SIGINT would be ignored where a shell has put this into the background
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def serving(clone: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `make serve` until the block ends; gives the address that the server says it listens on."""
    log = clone.parent / "serve.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            SERVE.split(), cwd=clone, env=environment, stdout=written, stderr=written, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (listens := re.search(r" listening url=http://(\S+)", log.read_text("utf-8", "replace"))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`make serve` does not listen:\n{log.read_text('utf-8', 'replace')}")
            time.sleep(0.1)
        yield listens[1]
    finally:
        stop(process)


def commands(example: Example) -> Iterator[list[str]]:
    """How each command of an example is started, but `make serve` and those that are explained in `tests.examples`."""
    if example.language == "python":
        yield [sys.executable, "-c", example.code]
        return
    for command in example.commands():
        if command == SERVE:
            continue
        if reason := reason_not_to_run(command):
            say(f"left out: {command} ({reason})")
        else:
            yield ["bash", "-euc", command]


def check_sound(file: Path) -> None:
    """That a file is speech of some length, and no silence; RuntimeError otherwise."""
    samples, rate = soundfile.read(file)
    seconds, peak = len(samples) / rate, float(np.abs(samples).max(initial=0))
    say(f"{file.name}: {seconds:.2f} s, peak {peak:.2f}")
    if seconds < 0.3 or peak < 0.05:
        raise RuntimeError(f"{file.name} is no speech")


def run(clone: Path, environment: dict[str, str]) -> None:
    """Everything that the first page says, in its order."""
    blocks = [example for example in examples(clone) if example.page == "README.md"]
    if blocks[0].commands()[0] != SERVE:
        raise RuntimeError(f"README.md does not begin with `{SERVE}`")
    say(f"$ {SERVE}")
    with serving(clone, environment) as address:
        for example in blocks:
            for command in commands(example):
                say(f"$ {command[-1]}")
                here = [word.replace(ADDRESS, address) for word in command]
                subprocess.run(here, cwd=clone, env=environment, check=True)
    written = sorted({name for example in blocks for name in re.findall(r"\w+\.(?:wav|mp3)\b", example.code)})
    if len(written) < 3:
        raise RuntimeError(f"README.md is to write audio by curl, by Python and by the shell, not only {written}")
    for name in written:
        check_sound(clone / name)


def main() -> None:
    """Clone, and do it all."""
    parser = argparse.ArgumentParser(description="Do what README.md says, in a fresh clone.")
    parser.add_argument("--packages-of", type=Path, metavar="VENV", help="an environment whose packages are there")
    lender = parser.parse_args().packages_of
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # an exception, which stops the server too
    environment = {name: value for name, value in os.environ.items() if not NOT_OURS.match(name)} | {"KW_PORT": "0"}
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True)
        if lender:
            lend_packages(clone, lender.absolute(), environment)
        run(clone, environment)
    say("README.md does what it says")


if __name__ == "__main__":
    main()
