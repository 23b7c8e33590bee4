NAME = "its own conf"
