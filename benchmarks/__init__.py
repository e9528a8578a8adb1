"""How fast the operators are, beside the public redbrick-sdk, and how their cost grows.

`python -m benchmarks` compares both on one sandbox, prints a table, and saves it as `results.json` and as a picture;
`--quick` leaves the largest number of tasks out. `python -m benchmarks growth` measures ours alone with very many
tasks, what importing costs, and what very many waiting sensors ask. Nothing else should run meanwhile.
"""
