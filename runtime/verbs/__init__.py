"""The verbs: one definition that the command line, the magic and the reference page are made from."""
