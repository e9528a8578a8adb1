"""One change to many tasks, each applied once: outcomes, mutations, executor, polling."""
