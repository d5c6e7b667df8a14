"""Graph of notebook runs over models, tasks and seeds.

`definition` reads suite.yaml, and `checks` validates it against the notebooks before a notebook runs. `graph` makes one
node for each notebook, model, task and seed. `records` stores the state of a node. `job` runs one node on a worker, and
`execution` runs all nodes on a Dask cluster. `timings` and `tables` report expected times and progress.
"""
