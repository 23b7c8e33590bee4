"""What can be chosen: the YAML values of every run, with their types in schema.py."""
