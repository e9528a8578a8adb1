"""The main job on the sandbox: `make demo`, and `make ui` for a look around."""
