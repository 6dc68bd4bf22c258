"""A package, so that its fixtures of that scope, and with them the browser's event loop, end with it."""
