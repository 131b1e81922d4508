TARGET = "target"
