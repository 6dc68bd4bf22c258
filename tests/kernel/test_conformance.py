"""The message protocol, as jupyter_kernel_test checks it, against kernels in containers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nbhull.kernel import specs
from support.jupyter import Place, make_image

PYTHON = r"""
import unittest
import jupyter_kernel_test as conformance  # its class itself must not be found as a test

class Python(conformance.KernelTests):
    kernel_name = "nbhull"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('oops', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise RuntimeError('oops')"
    code_execute_result = [{"code": "1+2+3", "result": "6"}]
    code_display_data = [{"code": "import IPython.display as d; d.display(d.HTML('x'))", "mime": "text/html"}]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

unittest.main()
"""

BASH = r"""
import unittest
import jupyter_kernel_test as conformance  # its class itself must not be found as a test

class Bash(conformance.KernelTests):
    kernel_name = "contained-bash"
    language_name = "bash"
    file_extension = ".sh"
    code_hello_world = "echo hello, world"
    completion_samples = [{"text": "readarr", "matches": {"readarray"}}]
    code_generate_error = "false"

unittest.main()
"""


def conforms(program: str, folder: Path) -> None:
    """Run a program of jupyter_kernel_test's in its own process; all its tests must pass."""
    done = subprocess.run(
        [sys.executable, "-c", program, "-v"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


def test_python(place: Place, folder: Path) -> None:
    conforms(PYTHON, folder)


def test_bash(place: Place, folder: Path) -> None:
    # the wheel of bash_kernel has no kernelspec: its users install that with its own command
    image = make_image(place, "with-bash-kernel", "python -m bash_kernel.install --sys-prefix")
    specs.install("contained-bash", "Bash (container)", image=image, kernel="bash", prefix=str(place.prefix))
    conforms(BASH, folder)
