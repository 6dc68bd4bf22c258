"""The processes that hold containers: launcher, holder and init, and the client that talks to them.

Standard library and ctypes only, single-threaded, and all imports made at the start: the holder
cannot read the host's files any more once it has entered its user namespace.
"""
