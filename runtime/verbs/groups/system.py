"""The verbs about this machine and nbhull itself."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import EVERYWHERE, Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON

VERBS: tuple[Verb, ...] = (
    Verb(
        "doctor",
        "tell what works on this machine, and how to mend what does not",
        "nbhull.runtime.verbs.system:doctor",
        (AS_JSON,),
        about="Each line is tried for real: ✓ works, ! works in part, ✗ does not work. "
        "The exit status is 0 if containers can run, else 1.",
        examples=(("doctor", "check this machine"),),
        needs_engine=False,
    ),
    Verb(
        "config",
        "show the rules that hold here, and where each comes from",
        "nbhull.runtime.verbs.system:config",
        (AS_JSON,),
        about="The administrator's are in /etc/nbhull/config.toml, the user's own in ~/.config/nbhull/config.toml; "
        "the user's hold within the administrator's.",
        examples=(("config", "what containers may have, and which file says so"),),
        needs_engine=False,
    ),
    Verb(
        "version",
        "print the versions of nbhull, Python and Linux",
        "nbhull.runtime.verbs.system:version",
        (AS_JSON,),
        examples=(("version", "what to write in a bug report"),),
        needs_engine=False,
    ),
    Verb(
        "help",
        "explain a verb",
        "nbhull.runtime.verbs.help:show",
        (Argument("VERB", "without one, all verbs are listed", many=True),),
        examples=(("help run", "what `run --help` prints"),),
        where=EVERYWHERE,
        needs_engine=False,
    ),
)
