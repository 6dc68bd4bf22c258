"""How words become a verb and its values."""

from __future__ import annotations

from typing import Any

import pytest

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import Mount
from nbhull.runtime.verbs.parser import parse, resolve
from nbhull.runtime.verbs.table import verbs


def values(line: str, where: str = "cli") -> dict[str, Any]:
    return parse(line.split(), where)[1]


def test_options_are_written_in_every_usual_way() -> None:
    for written in (
        "-m 2g -e A=1 -it",
        "-m2g -eA=1 -i -t",
        "--memory=2g --env=A=1 --interactive --tty",
        "-itm 2g -e A=1",
    ):
        found = values(f"run {written} host")
        assert (found["memory"], found["env"], found["interactive"], found["tty"]) == (
            2 << 30,
            (("A", "1"),),
            True,
            True,
        )


def test_options_of_the_command_reach_it_untouched() -> None:
    found = values("run --rm host ls --all -- -x --rm")
    assert (found["image"], found["command"]) == ("host", ("ls", "--all", "--", "-x", "--rm"))
    assert values("exec -t box sh -c --help")["command"] == ("sh", "-c", "--help")


def test_two_dashes_end_the_options() -> None:
    assert values("stop -- -t -x")["container"] == ("-t", "-x")
    assert values("run --rm -- host ls")["command"] == ("ls",)


def test_options_stand_behind_positionals_where_no_command_follows() -> None:
    found = values("stop box -t 0.5 other")
    assert (found["container"], found["time"]) == (("box", "other"), 0.5)


def test_a_repeated_option_is_kept_and_a_single_one_overridden() -> None:
    found = values("run -v /a:/b -v ./c:/d:ro --name one --name two host")
    first, second = found["volume"]
    assert first == Mount("/a", "/b")
    assert (second.target, second.read_only, second.source[0]) == ("/d", True, "/")
    assert found["name"] == "two"


def test_values_are_whole_without_any_option() -> None:
    found = values("run host")
    assert found == {
        "name": None,
        "rm": False,
        "pull": "missing",
        "interactive": False,
        "tty": False,
        "env": (),
        "workdir": None,
        "user": None,
        "volume": (),
        "memory": None,
        "cpus": None,
        **dict.fromkeys(("pids_limit", "memory_swap", "cpuset_cpus", "cpu_shares", "blkio_weight"), None),
        **{f"device_{way}_{unit}": () for way in ("read", "write") for unit in ("bps", "iops")},
        "storage_opt": (),
        "network": None,
        "no_host_settings": False,
        **dict.fromkeys(("cap_add", "cap_drop", "security_opt", "tmpfs", "device", "group_add", "ulimit"), ()),
        "read_only": False,
        "privileged": False,
        "gpus": None,
        "entrypoint": None,
        "publish": (),
        "dns": (),
        "add_host": (),
        "hostname": None,
        "image": "host",
        "command": (),
    }


def test_a_variable_without_value_is_taken_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert values("run -e HERE -e NOWHERE -e EMPTY= host")["env"] == (("HERE", "yes"), None, ("EMPTY", ""))


def test_the_magic_speaks_of_its_own_container() -> None:
    assert parse([], "magic")[0].name == "info"
    verb, found = parse(["snapshot", "clean"], "magic")
    wanted = {"name": "clean", "memory": False, "note": None, "pin": False, "volumes": False, "volume": None}
    assert (verb.name, found) == ("snapshot", wanted)
    assert "login" not in {verb.name for verb in verbs("magic")}
    assert parse(["run", "-v", "x", "host"], "magic")[1]["variable"] == ("x",)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("", "no verb is given", "'nbhull --help' lists them"),
        ("rnu host", "unknown verb 'rnu'", "did you mean 'run'?"),
        ("frobnicate", "unknown verb 'frobnicate'", "'nbhull --help' lists them"),
        ("kernel", "'kernel' is no verb by itself", "one of: kernel install, kernel list, kernel remove"),
        ("kernel instal", "unknown verb 'kernel instal'", "did you mean 'kernel install'?"),
        ("run --memroy 2g host", "unknown option '--memroy'", "did you mean '--memory'?"),
        ("run --xyzzy host", "unknown option '--xyzzy'", "see 'nbhull run --help'"),
        ("ps -x", "unknown option '-x'", "see 'nbhull ps --help'"),
        ("ps --al", "unknown option '--al'", "did you mean '--all'?"),
        ("run --rm=yes host", "option '--rm' takes no value", "see 'nbhull run --help'"),
        ("run --name", "option '--name' needs a value", "write it as --name NAME; see 'nbhull run --help'"),
        ("run", "IMAGE is missing", "see 'nbhull run --help'"),
        ("exec box", "COMMAND is missing", "see 'nbhull exec --help'"),
        ("stop", "CONTAINER is missing", "see 'nbhull stop --help'"),
        ("reset box one two", "unexpected argument 'two'", "see 'nbhull reset --help'"),
        ("run -m 12elephants host", "memory limit '12elephants' is not a size", "write it like 512m or 2g"),
        ("run --cpus none host", "'none' is not a positive number of cores", "write it like 2 or 0.5"),
        ("run --cpus nan host", "'nan' is not a positive number of cores", "write it like 2 or 0.5"),
        ("run --pids-limit -1 host", "'-1' is not a positive whole number", "write it like 200"),
        ("run --network bridge host", "unknown network 'bridge'", "one of: host, nat, none"),
        ("run -p 80 host", "published port '80' is not of the form [ADDRESS:]OUTSIDE:INSIDE[/udp]",
         "write it like 8080:80, 127.0.0.1:8080:80 or 5353:53/udp"),
        ("run -p 8080:80/sctp host", "published port '8080:80/sctp' is not of the form [ADDRESS:]OUTSIDE:INSIDE[/udp]",
         "write it like 8080:80, 127.0.0.1:8080:80 or 5353:53/udp"),
        ("run -p 0:80 host", "published port '0:80' is not of the form [ADDRESS:]OUTSIDE:INSIDE[/udp]",
         "write it like 8080:80, 127.0.0.1:8080:80 or 5353:53/udp"),
        ("run -p here:8080:80 host", "the address to publish on 'here' is not an address", "write it like 192.0.2.1"),
        ("run --dns resolver host", "the name server 'resolver' is not an address", "write it like 192.0.2.1"),
        ("run --add-host far host", "the host's address '' is not an address", "write it like 192.0.2.1"),
        ("run -w here host", "working folder 'here' is not an absolute path", "write it like /tmp"),
        ("run -e =x host", "variable '=x' has no name", "write it like NAME=VALUE"),
        ("run -v d@ta:/data host", "volume source 'd@ta' is neither a path nor a volume's name",
         "a relative path begins with './'; "
         "write it like ./data:/data, /srv/data:/data:ro, or data:/data for a named volume"),
        ("run -v /a:b host", "volume target 'b' is not an absolute path",
         "write it like ./data:/data, /srv/data:/data:ro, or data:/data for a named volume"),
        ("run -v /a host", "volume '/a' is not of the form SOURCE:TARGET[:ro]",
         "write it like ./data:/data, /srv/data:/data:ro, or data:/data for a named volume"),
        ("run --hostname a_b host", "host name 'a_b' is not valid", "use letters, digits, '-' and '.', at most 64"),
        ("stop -t soon box", "'soon' is not a positive number of seconds", "write it like 0, 10 or 0.5"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_with_what_mends_it(line: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(line.split())
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("verb", verbs(), ids=lambda verb: verb.name)
def test_what_the_table_refers_to_exists(verb: object) -> None:
    from nbhull.runtime.verbs.definition import Verb

    assert isinstance(verb, Verb)
    assert callable(resolve(verb.implementation))
    for argument in verb.arguments:
        assert not argument.parse or callable(resolve(argument.parse))


def test_no_verb_begins_another() -> None:
    """So the first one that fits is the one that is meant, and no later group need be read."""
    names = [verb.name for verb in verbs()]
    assert len(names) == len(set(names))
    assert not any(other.startswith(f"{name} ") for name in names for other in names)


def test_help_is_asked_for_in_every_usual_way() -> None:
    for line in ("help run", "run --help", "--help run", "run --rm --help", "-h run"):
        verb, found = parse(line.split())
        assert (verb.name, found["verb"]) == ("help", ("run",)), line
    assert parse(["kernel", "--help"])[1]["verb"] == ("kernel",)
    assert parse(["kernel", "list", "-h"])[1]["verb"] == ("kernel list",)
    assert values("run -h box host")["hostname"] == "box"
    assert parse(["--version"])[0].name == "version"
