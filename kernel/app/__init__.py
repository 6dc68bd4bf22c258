"""What runs inside the container: ipykernel's application, with %container and a way over a reset."""
