"""The notebooks as a graph of runs over models, tasks and seeds.

`definition` reads suite.yaml and `checks` holds it against the notebooks, before anything runs; `graph` makes one node
of each notebook, model, task and seed; `records` knows what became of a node; `job` runs one on a worker, `execution`
all of them on a Dask cluster; `timings` and `tables` tell what a run will take and how far it is.
"""
