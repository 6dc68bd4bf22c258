"""The verbs of images and snapshots."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, EVERYWHERE, MAGIC, Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON, CONTAINER, OF_VOLUME, QUIET, VALUES

IMPLEMENTED = "nbhull.runtime.verbs.images:"
NAME = "nbhull.runtime.images.reference:local_name"
IMAGE = Argument("IMAGE", "name, id, beginning of the id, or repository@digest of an image", required=True)
IMAGES = Argument("IMAGE", "names or ids of images", required=True, many=True)

VERBS: tuple[Verb, ...] = (
    Verb(
        "build",
        "build an image from a Containerfile, or from environment files",
        "nbhull.runtime.verbs.building:build",
        (
            Argument("--tag", "name of the image; may be given several times", short="-t", metavar="NAME", many=True),
            Argument("--file", "the Containerfile, `-` for standard input", short="-f", metavar="FILE"),
            Argument("--target", "stage to build, by name or number", metavar="STAGE"),
            Argument(
                "--build-arg",
                "value of an ARG; without a value it is taken from the environment",
                metavar="NAME[=VALUE]",
                parse=VALUES + "parse_env",
                many=True,
            ),
            Argument(
                "--secret",
                "value for RUN --mount=type=secret, from a file or a variable",
                metavar="id=NAME,src=FILE|env=VARIABLE",
                parse="nbhull.runtime.builder.mounts:parse_secret",
                many=True,
            ),
            Argument("--label", "label of the image", metavar="NAME=VALUE", parse=VALUES + "parse_env", many=True),
            Argument("--no-cache", "do every step anew", flag=True),
            Argument(
                "--cache-from",
                "take steps that were done elsewhere, from a registry or a folder; one that is not there is no error",
                metavar="REF|./DIR",
                parse="nbhull.runtime.builder.travel:parse_source",
                many=True,
            ),
            Argument(
                "--cache-to",
                "give the steps of this build to a registry or a folder, or, inline, within the image itself",
                metavar="REF|./DIR|inline",
                parse="nbhull.runtime.builder.travel:parse_place",
                many=True,
            ),
            Argument(
                "--output",
                "write the image's files, too: into a folder, or with type=tar, oci or docker into an archive; `-` is "
                "a tar on standard output",
                short="-o",
                metavar="DIR|type=TYPE,dest=FILE",
                parse="nbhull.runtime.builder.output:parse_output",
                many=True,
                where=CLI,
            ),
            Argument("--pull", "look for newer base images even where there are some", flag=True),
            Argument(
                "--network",
                "network of RUN steps, as for `run`",
                metavar="host|nat|none",
                parse=VALUES + "parse_network",
            ),
            Argument("--no-host-settings", "do not hand RUN steps the host's proxies and certificates", flag=True),
            Argument(
                "--progress",
                "how progress is shown: auto, plain, tty, quiet",
                metavar="STYLE",
                parse="nbhull.runtime.verbs.building:parse_progress",
                default="auto",
                where=CLI,
            ),
            Argument("--base", "image that environment files are installed on (debian:bookworm)", metavar="IMAGE"),
            Argument("--locked", "install just what the lock file of environment files says", flag=True),
            Argument("--relock", "resolve environment files anew, though the lock file fits", flag=True),
            Argument("--iidfile", "write the image's id to a file", metavar="FILE", where=CLI),
            Argument("--quiet", "print the image's id only", short="-q", flag=True, where=CLI),
            Argument(
                "CONTEXT",
                "folder or tar with what COPY takes; `-`: standard input; a notebook",
                required=True,
                where=CLI,
            ),
            Argument(
                "--context",
                "folder with what COPY takes, instead of the notebook's",
                metavar="FOLDER",
                where=MAGIC,
            ),
            Argument("--no-context", "no folder: COPY takes nothing but other stages' files", flag=True, where=MAGIC),
        ),
        about="The Containerfile is CONTEXT's `Containerfile`, else its `Dockerfile`; `.containerignore`, else "
        "`.dockerignore`, says what of CONTEXT is left out. Steps are done again only if what they depend on has "
        "changed: content, names and modes, never paths or times. Independent stages are built at the same "
        "time.\n\n"
        "RUN steps are given the host's proxy variables, certificates, and settings of pip, npm and apt, of which "
        "nothing ends in the image. With SOURCE_DATE_EPOCH set, the same content gives the same digest anywhere.\n\n"
        "Without a Containerfile, the environment files of CONTEXT count: environment.yml, requirements.txt, "
        "pyproject.toml, uv.lock, apt.txt, runtime.txt, postBuild, start; of a notebook its inline script metadata "
        "(PEP 723). What they ask for is written, with versions and hashes, to nbhull.lock beside them, and installed "
        "from there as long as they stay the same.",
        examples=(
            ("build -t mine .", "an image of the folder's Containerfile"),
            ("build -t mine --target test --build-arg VERSION=3 .", "one stage of it, with an argument"),
            ("build -t paper --locked ./repository", "the environment that a repository's lock file describes"),
            ("build --cache-from registry.example.org/cache --cache-to registry.example.org/cache .", "share steps"),
            ("build -o ./site --target pages .", "the files of a stage, in a folder"),
            ("build --secret id=token,src=token.txt -f other/Containerfile .", "with a secret and another file"),
        ),
        in_notebooks="`%%container build -t NAME` takes the cell for a Containerfile; `%container build -t NAME` the "
        "folder's own. COPY takes files of the notebook's folder, unless --context or --no-context says otherwise; "
        "`.containerignore`, else `.dockerignore`, says what of it is left out. Progress is shown as it comes; "
        "interrupting the kernel ends the build. Errors name the line of the cell. Steps are done again only if what "
        "they depend on has changed.\n\n"
        "For a kernel in a container the server builds: RUN steps have the kernel's limits and network and no more "
        "rights than usual, COPY takes files of the kernel's folders alone, FROM what the rules allow to be run, and "
        "a name must be free, or of an image that was built from the same folder.",
        where=EVERYWHERE,
    ),
    Verb(
        "images",
        "list images and snapshots",
        "nbhull.runtime.verbs.images:images",
        (Argument("--all", "what resets have kept, too", short="-a", flag=True, where=CLI), QUIET, AS_JSON),
        examples=(("images", "what `run` can be given"),),
        where=EVERYWHERE,
    ),
    Verb(
        "snapshot",
        "keep the files of a container, as they are now, as an image",
        "nbhull.runtime.verbs.images:snapshot",
        (
            Argument("--note", "a line about it, which `snapshots` shows", metavar="TEXT"),
            Argument("--pin", "never remove it without being asked", flag=True),
            Argument("--volumes", "and what is in its volumes, in the same moment", flag=True),
            *OF_VOLUME,
            CONTAINER,
            Argument(
                "--memory", "and the kernel's memory, as it is when the cell ends", short="-m", flag=True, where=MAGIC
            ),
            Argument("NAME", "name of the image", parse="nbhull.runtime.model:parse_name"),
        ),
        about="Running processes go on. It takes milliseconds, whatever was written; where processes hold something "
        "that cannot be moved, the changed files are copied, and the reason is printed to standard error. Prints what "
        "names the image.\n\nVolumes are copied, while all processes that have them stand still.",
        examples=(
            ("snapshot mybox before-upgrade", "keep the files of mybox"),
            ("snapshot --note 'data loaded' mybox", "under a name of its own, with a note"),
            ("snapshot --volumes mybox before-import", "files and volumes as one moment"),
            ("snapshot --volume results first-run", "what is in the volume `results`"),
        ),
        where=EVERYWHERE,
    ),
    Verb(
        "reset",
        "put the files of a container back on a snapshot",
        "nbhull.runtime.verbs.images:reset",
        (
            Argument("--volumes", "and its volumes, as they were taken with the snapshot", flag=True),
            *OF_VOLUME,
            CONTAINER,
            Argument("--files", "the files alone, even if the memory was kept", flag=True, where=MAGIC),
            Argument("NAME", "snapshot; without one, the last one made or reset to, else the image itself"),
        ),
        about="All its processes end. A container that ran is running again afterwards; a notebook's kernel "
        "is started again. What it had is kept as a snapshot; `undo` goes back to it.\n\nOf a volume alone, "
        "processes go on; what they have open is not in the volume any more.",
        examples=(
            ("reset mybox before-upgrade", "put the files of mybox back"),
            ("reset --volume results first-run", "put the volume `results` back"),
        ),
        where=EVERYWHERE,
    ),
    Verb(
        "tag",
        "give an image one more name",
        IMPLEMENTED + "tag",
        (IMAGE, Argument("NAME", "[REGISTRY/]NAME[:TAG]", required=True, parse=NAME)),
        about="A name belongs to one image: who had it loses it.",
        examples=(("tag debian registry.example.org/team/debian:12", "the name under which it is pushed"),),
        where=EVERYWHERE,
    ),
    Verb(
        "rmi",
        "take names from images, and remove images with their last name",
        IMPLEMENTED + "remove",
        (Argument("--force", "all names of an image that is given by its id", short="-f", flag=True), IMAGES),
        about="An image that containers are made of stays. Layers that no other image or container has go with it.",
        examples=(("rmi debian", "remove an image"),),
        where=EVERYWHERE,
    ),
    Verb(
        "inspect",
        "show all that is known of images and containers, as JSON",
        IMPLEMENTED + "inspect",
        (Argument("NAME", "names or ids of images or containers", required=True, many=True),),
        about="Images are described in the words of `docker image inspect`.",
        examples=(("inspect debian", "its configuration, layers and digests"),),
        where=EVERYWHERE,
    ),
    Verb(
        "history",
        "list the steps that an image was made in",
        IMPLEMENTED + "history",
        (IMAGE, AS_JSON),
        examples=(("history debian", "the newest step first"),),
        where=EVERYWHERE,
    ),
    Verb(
        "df",
        "tell what images and containers take up on disk",
        IMPLEMENTED + "usage",
        (AS_JSON,),
        about="What several share is counted once. `blobs` are layers as they came, kept so that they can be pushed "
        "and saved again without a difference.",
        examples=(("df", "the space used, and what of it can be freed"),),
        where=EVERYWHERE,
    ),
    Verb(
        "prune",
        "remove images without a name, and all that nothing needs",
        IMPLEMENTED + "prune",
        (
            Argument(
                "--all",
                "all images, too, that no container uses and nobody pinned, and what builds remember",
                short="-a",
                flag=True,
            ),
            Argument(
                "--keep",
                "of cache mounts, downloads and contexts of builds, leave at most so much, what was used last",
                metavar="SIZE",
                parse=VALUES + "parse_size",
            ),
        ),
        about="Containers stay, and so do, without `--all`, snapshots and images with a name. Of what builds keep for "
        "the next ones, what was of no use for 30 days goes; with `--all`, all of it.",
        examples=(("prune", "free what was left behind"),),
        where=EVERYWHERE,
    ),
    Verb(
        "pin",
        "write the image that a notebook chooses into it, with its digest",
        IMPLEMENTED + "pin",
        (Argument("NOTEBOOK", "an .ipynb file", required=True),),
        about="The image must have been pulled or pushed, so that others can get it. Opened elsewhere, the notebook "
        "gets just that image, or an error, never another one.",
        examples=(("pin analysis.ipynb", "have everybody run it in the same image"),),
        where=EVERYWHERE,
    ),
    Verb(
        "use",
        "move a notebook to another image",
        "nbhull.runtime.verbs.images:use",
        (
            IMAGE,
            Argument("NOTEBOOK", "an .ipynb file, which is not open", required=True, where=CLI),
        ),
        about="Writes the image into the notebook's metadata, as `container.image`: the next kernel of this notebook, "
        "if its kernelspec is nbhull's, runs in it.",
        in_notebooks="The notebook goes on in a new container of the image, with a new kernel on the same connection; "
        "an image that is not here is pulled, and ipykernel is added where it lacks it. What the notebook has left is "
        "kept as a snapshot, to which `%container undo` goes back. It holds until the kernel is shut down; what to "
        "write into the notebook's metadata, so that it holds for good, is told: a kernel cannot write there itself.",
        examples=(("use debian:bookworm analysis.ipynb", "run that notebook in Debian from now on"),),
        where=EVERYWHERE,
    ),
)
