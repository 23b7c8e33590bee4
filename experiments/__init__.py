"""What a person runs: the command line and the configs, imported by nobody."""
