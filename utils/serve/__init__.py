"""The page that shows runs, their tasks, logs, curves and scores, and that a browser's engine translates on."""
