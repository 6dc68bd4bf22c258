"""The verbs by which images and root file systems come from files, and go to them."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import EVERYWHERE, Argument, Verb
from nbhull.runtime.verbs.groups.images import IMAGES, NAME
from nbhull.runtime.verbs.groups.shared import ANY_CONTAINER, QUIET

IMPLEMENTED = "nbhull.runtime.verbs.archives:"

VERBS: tuple[Verb, ...] = (
    Verb(
        "save",
        "write images to an archive",
        IMPLEMENTED + "save",
        (
            Argument(
                "--output",
                "file, or folder for `oci-dir`; `-` is standard output",
                short="-o",
                metavar="PATH",
                required=True,
            ),
            Argument(
                "--format",
                "`oci-archive`, `oci-dir`, or `docker-archive`, as `docker save` writes it",
                metavar="FORMAT",
                default="oci-archive",
                parse=IMPLEMENTED + "parse_format",
            ),
            IMAGES,
        ),
        about="podman, docker, skopeo, buildah and umoci read it. The same images give the same bytes.",
        examples=(("save -o debian.tar debian", "an OCI archive of one image"),),
        where=EVERYWHERE,
    ),
    Verb(
        "load",
        "take in the images of an archive",
        IMPLEMENTED + "load",
        (
            Argument(
                "--input",
                "file, or folder of an OCI image layout; `-` is standard input",
                short="-i",
                metavar="PATH",
                default="-",
            ),
            Argument("--name", "name for the image, instead of the archive's", metavar="NAME", parse=NAME),
            QUIET,
        ),
        about="Reads what `save`, `docker save`, `podman save`, skopeo and buildah write; every digest is verified.",
        examples=(("load -i debian.tar", "the images in a file"),),
        where=EVERYWHERE,
    ),
    Verb(
        "import",
        "make an image of a root file system's tar",
        IMPLEMENTED + "import_root",
        (
            Argument("FILE", "a tar, compressed or not; `-` is standard input", required=True),
            Argument("NAME", "name of the image", required=True, parse=NAME),
        ),
        examples=(("import rootfs.tar.gz mysystem", "then: nbhull run mysystem sh"),),
        where=EVERYWHERE,
    ),
    Verb(
        "export",
        "write the files of a container to a tar",
        IMPLEMENTED + "export",
        (
            Argument("--output", "file; `-` is standard output", short="-o", metavar="FILE", default="-"),
            ANY_CONTAINER,
        ),
        about="All that the container sees, its image's files and its own; handed-in folders, /proc, /sys, /dev and "
        "/run are empty in it. Of a container of the image `host`, too: imported again, it stands alone.",
        examples=(("export -o box.tar mybox", "then: nbhull import box.tar name"),),
        where=EVERYWHERE,
    ),
    Verb(
        "commit",
        "keep the files of a container as an image with another configuration",
        IMPLEMENTED + "commit",
        (
            Argument(
                "--change",
                "instruction, as in a Containerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME,"
                " WORKDIR",
                short="-c",
                metavar="INSTRUCTION",
                many=True,
            ),
            ANY_CONTAINER,
            Argument("NAME", "name of the image", required=True, parse=NAME),
        ),
        about="Without changes it is `snapshot`.",
        examples=(("commit -c 'CMD [\"python3\"]' mybox myimage", "an image that runs Python"),),
        where=EVERYWHERE,
    ),
    Verb(
        "bootstrap",
        "make an image of a minimal Debian or Ubuntu from its packages",
        IMPLEMENTED + "bootstrap",
        (
            Argument("--include", "one more package", metavar="PACKAGE", many=True),
            Argument("--mirror", "where packages come from, instead of the distribution's own", metavar="URL"),
            Argument("SUITE", "such as debian:bookworm", required=True),
            Argument("NAME", "name of the image; without one, SUITE", parse=NAME),
        ),
        about="For where there is no registry. Needs mmdebstrap, and no root.",
        examples=(("bootstrap --include python3 debian:bookworm", "Debian 12 with Python"),),
        where=EVERYWHERE,
    ),
)
