"""The two parts of the program that attacks from inside a container (`support.attacks.program` joins them)."""
