"""`fl lifecycle`: the stages around the rounds, in order, from one configuration; only what changed runs again.

    stage.py       what a stage is: its name, what it depends on, reads and is made of, and the function that does it
    inputs.py      what a stage depends on, hashed: data, code, settings, the stages before it
    pipeline.py    walks the stages: skips, runs, puts whole folders in place of old ones
    stages.py      the list; a new stage is a module with a STAGE, and a line there
    command.py     the command and its table

Nothing heavy is imported before a stage has to run: a module of a stage imports inside its function.
"""
