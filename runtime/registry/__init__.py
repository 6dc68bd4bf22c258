"""Registries of images, as the OCI distribution specification has them, in storeys:

    transport       HTTP to one host: TLS with the host's and private authorities, proxies, retries
    credentials     who the user is to a registry: auth.json of Podman and Docker, and credential helpers
    authorization   what a request carries, escalating when the registry asks for more
    client          manifests and blobs of one repository
    transfer        pull and push, on the store's blobs, layers and catalog

The specification: https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
"""
