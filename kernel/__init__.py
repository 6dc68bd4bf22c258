"""The kernel provisioner, and what runs beside the kernel inside its container."""
