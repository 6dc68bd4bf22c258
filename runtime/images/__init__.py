"""Images: from bytes to what containers are made of, in storeys, each of which knows only those below it.

    blobs       content by its digest, as an OCI image layout keeps it (image-layout.md)
    documents   manifests, indexes and configurations, checked and typed (manifest.md, image-index.md, config.md)
    tarheaders, compression, unpack, pack    layers: a tar to a folder and back (layer.md)
    worker, workshop    the process in the containers' user namespace that works on those folders, and its client
    layers      layers of the store: unpacked once, packed when something asks
    catalog     images: names, digests, what they are made of, what is garbage

The specifications are those of the Open Container Initiative, https://github.com/opencontainers/image-spec.
"""
