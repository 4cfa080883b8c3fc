"""Rootstock: from raw images to a measured, explained image classifier that can be rebuilt to the bit.

Read the library in the order of the flow: `config` and `schema` (what is promised), `data` (archives to batches),
`models`, `evaluation`, `training`, `ops` (MLflow, locks). `pipeline/` holds one thin script a stage.
"""
