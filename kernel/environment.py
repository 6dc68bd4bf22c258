"""Which variables reach a kernel. Never the server's own environment: it holds tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Template

ALLOWED = re.compile(
    r"LANG|LANGUAGE|LC_[A-Z]+|TZ|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|PYTHONHASHSEED|MPLBACKEND|JPY_SESSION_NAME"
    r"|(?i:https?|ftp|all|no)_(?i:proxy)"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|PIP_CERT|NODE_EXTRA_CA_CERTS"
    r"|PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|PIP_TRUSTED_HOST|PIP_NO_INDEX|PIP_FIND_LINKS|PIP_DEFAULT_TIMEOUT|PIP_RETRIES"
    r"|UV_INDEX_URL|UV_EXTRA_INDEX_URL|UV_DEFAULT_INDEX|UV_INDEX|UV_NATIVE_TLS|UV_SYSTEM_CERTS|UV_INSECURE_HOST"
)
"""Names taken over from the server: how things look, and how the network is reached."""

HOST_ONLY = re.compile(
    r"JPY_PARENT_PID|JPY_INTERRUPT_EVENT|PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|TMPDIR|VIRTUAL_ENV|CONDA_\w+"
    r"|PYTHONEXECUTABLE|PYTHONHOME|PYTHONPATH|LD_\w+|XDG_\w+|JUPYTER\w*_DIR|JUPYTER_TOKEN|JUPYTERHUB_\w+|NBHULL_\w+"
)
"""Names that mean nothing, or harm, inside a container, even where a caller gives them."""


def for_kernel(given: Mapping[str, str], server: Mapping[str, str], kernelspec: Mapping[str, str]) -> dict[str, str]:
    """The variables for a kernel.

    `given`: what the caller of start_kernel wants the kernel to have, commonly the server's own
    environment and some more; `server`: the server's own; `kernelspec`: the kernelspec's `env`,
    in which ${NAME} stands for a variable of `given`.
    """
    chosen = {
        name: text
        for name, text in given.items()
        if ALLOWED.fullmatch(name) or (server.get(name) != text and not HOST_ONLY.fullmatch(name))
    }
    chosen.update((name, Template(text).safe_substitute(given)) for name, text in kernelspec.items())
    return chosen
