"""Real packages that speak through a server of ours, each in an environment of its own: `make test-clients`."""
