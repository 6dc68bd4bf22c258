"""Thin typed bindings to Linux: one small function a system call, constants as in the kernel's headers."""
