"""Many independent pieces of work, done by processes of one machine or a cluster, resumed after whatever stopped them.

`store` keeps one file per finished unit, `places` are where it lies, `work` is what a worker does with a unit, `pool`
and `on_ray` run workers, and `batch` puts them together.
"""
