"""The definitions of the verbs, by what they are about; plain data, read on every start of the command line."""
