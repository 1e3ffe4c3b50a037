"""Where runs are carried out: in this process, by several on this machine, on a Ray cluster, in shards; their order."""
