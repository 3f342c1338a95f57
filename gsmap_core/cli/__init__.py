"""The command `gsmap`: one file per verb. Nodes are started as processes, never imported."""
