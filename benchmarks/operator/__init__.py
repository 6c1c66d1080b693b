"""An operator of our own for all decoder layers, as an experiment: docs/notes/own-operator.md."""
