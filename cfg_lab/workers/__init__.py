"""Running a sweep on many workers: on Slurm, or as several processes of this machine.

The texts of a sweep do not depend on each other, and their ids do not depend on where they are decoded. So
the work is cut into shards, and an existing engine runs the shards as jobs: Slurm, or submitit's local
executor.

The modules, from the bottom:

- `engine`: what an engine does. `slurm` and `local` are the two engines.
- `shards`: cuts the unfinished texts into shards of about equal cost.
- `submission`: the files of one submission in the results folder.
- `jobs`: what the jobs do: decode and score a shard, score some cells, or take the next step.
- `submit`: plans a sweep, and submits what is neither done nor running.
- `follow`: shows how far a submission is, until it ends.
"""
