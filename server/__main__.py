"""The command `qwen3-tts`, also `python -m server`: serve, wyoming, say, batch, voices, models, pull and others."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from server import config
from server.cli import commands, hub
from server.cli.arguments import Command, make_parser, parse
from server.cli.batch import batch
from server.cli.errors import FAILURE, USAGE_ERROR, CommandError
from server.cli.serve import serve
from server.cli.voices import voices
from server.cli.wyoming import wyoming
from server.config import SettingsError
from server.errors import ApiError
from server.leftovers import finished

INTERRUPTED = 130


_COMMANDS: dict[str, Command] = {
    "serve": serve,
    "wyoming": wyoming,
    "say": commands.say,
    "batch": batch,
    "voices": voices,
    "models": commands.models,
    "pull": hub.pull,
    "push": hub.push,
    "convert": hub.convert,
    "bench": commands.bench,
    "keys": commands.keys,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (failure), 2 (wrong usage or settings), 130 (Ctrl-C)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # on Windows pipes and files have an encoding of few letters
    parsed = parse(make_parser(_COMMANDS), arguments)
    try:
        parsed.run(parsed, config.load())
        sys.stdout.flush()
    except SettingsError as error:
        return _fail(str(error), USAGE_ERROR)
    except CommandError as error:
        return _fail(str(error), error.status)
    except ApiError as error:
        return _fail(error.message, USAGE_ERROR if error.status in (400, 404) else FAILURE)
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        file = "file" if error.filename is None else finished(str(error.filename))
        return _fail(f"{file}: {error.strerror or error}", FAILURE)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _fail(message: str, status: int) -> int:
    print(f"qwen3-tts: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
