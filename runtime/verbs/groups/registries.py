"""The verbs of registries."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, EVERYWHERE, Argument, Verb

PLAIN_HTTP = Argument(
    "--plain-http", "speak to the registry without TLS; needless for registries of this machine", flag=True, where=CLI
)
QUIET = Argument("--quiet", "show no progress", short="-q", flag=True, where=CLI)

VERBS: tuple[Verb, ...] = (
    Verb(
        "pull",
        "get an image from a registry",
        "nbhull.runtime.verbs.registries:pull",
        (
            PLAIN_HTTP,
            QUIET,
            Argument("IMAGE", "`REGISTRY/NAME[:TAG][@DIGEST]`; without a tag, `latest`", required=True),
        ),
        about="Layers come side by side and are unpacked while they arrive; what is here already is not asked for "
        "again, and a pull that was cut goes on where it was. All is checked against its digest. Of an image for "
        "several architectures, this machine's own is taken. Prints the image's name.\n\n"
        "Private authorities are trusted as Docker and Podman do: `certs.d/REGISTRY/*.crt` in `/etc/containers`, "
        "`/etc/docker` or `~/.config/containers`; proxies are those of `https_proxy` and `no_proxy`.",
        examples=(("pull registry.example.org/team/analysis:2026", "get that image"),),
        where=EVERYWHERE,
    ),
    Verb(
        "push",
        "give an image to a registry",
        "nbhull.runtime.verbs.registries:push",
        (
            PLAIN_HTTP,
            QUIET,
            Argument("IMAGE", "image or snapshot", required=True),
            Argument("TARGET", "name in the registry; without one, the image's own"),
        ),
        about="Layers that the registry has are not sent again. Prints the digest under which it can be pulled.",
        examples=(("push analysis registry.example.org/team/analysis:2026", "give it away under that name"),),
        where=EVERYWHERE,
    ),
    Verb(
        "login",
        "remember who you are to a registry",
        "nbhull.runtime.verbs.registries:login",
        (
            PLAIN_HTTP,
            Argument("--username", "name to log in with; asked for if it is not given", short="-u", metavar="NAME"),
            Argument("--password-stdin", "read the password from standard input", flag=True),
            Argument("REGISTRY", "host, with its port", required=True),
        ),
        about="The registry is asked whether it takes them. They are kept in `$REGISTRY_AUTH_FILE`, else "
        "`~/.config/containers/auth.json`, where Podman, Buildah and Skopeo find them too, or given to the credential "
        "helper that this file names. What `docker login` has kept is found as well.",
        examples=(("login -u ada registry.example.org", "log in; the password is asked for"),),
        needs_engine=False,
    ),
    Verb(
        "logout",
        "forget who you are to a registry",
        "nbhull.runtime.verbs.registries:logout",
        (Argument("REGISTRY", "host, with its port", required=True),),
        examples=(("logout registry.example.org", "forget the password"),),
        needs_engine=False,
    ),
)
