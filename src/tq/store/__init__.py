"""Where the broker keeps its rows: ordered bytes, committed in atomic batches.

`base` is the contract, `memory` keeps it in this process, `rocks` on disk. Nothing
here knows what a row means: keys and records are the engine's.
"""
