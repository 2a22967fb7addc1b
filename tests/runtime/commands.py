"""The command `velatura` in the tests' own process: a start of Python and its libraries takes longer
than most of what it is asked to do."""

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Generator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

from velatura.runtime.__main__ import main


def velatura_bytes(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """What a process of its own would end with: exit code, and all that reaches its two outputs, from
    libraries in C, too."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with ExitStack() as stack:
            stack.enter_context(chdir(cwd or Path.cwd()))
            stack.enter_context(_streams_into(out, err))
            before, sys.argv = sys.argv, ["velatura", *words]
            try:
                main()
                code: object = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
                code = 1
            finally:
                sys.argv = before
        assert isinstance(code, int)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


def velatura(
    *arguments: object, check: bool = False, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The same as text; with `check`, anything but success is an error."""
    found = velatura_bytes(*arguments, cwd=cwd)
    done = subprocess.CompletedProcess(
        found.args, found.returncode, found.stdout.decode(), found.stderr.decode()
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


@contextmanager
def _streams_into(out: BinaryIO, err: BinaryIO) -> Generator[None]:
    """Both of Python's streams and both of the process's."""
    files: Sequence[tuple[int, BinaryIO]] = ((1, out), (2, err))
    python = sys.stdout, sys.stderr
    for stream in python:
        stream.flush()
    kept = [os.dup(number) for number, _ in files]
    try:
        for number, file in files:
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (
            TextIOWrapper(os.fdopen(number, "wb", closefd=False), "utf-8") for number, _ in files
        )
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = python
        for (number, _), before in zip(files, kept, strict=True):
            os.dup2(before, number)
            os.close(before)
