"""Who holds a task: assignments, claims, balance plans."""
