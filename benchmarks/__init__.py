"""Benchmarks: speed compared with the public SDK, and growth of costs.

`python -m benchmarks` compares both on one sandbox, prints a table, and saves it as `results.json` and as a picture;
`--quick` leaves the largest number of tasks out. `python -m benchmarks growth` measures ours alone with very many
tasks, what importing costs, and what very many waiting sensors ask. Nothing else should run meanwhile.
"""
