"""``@task.redbrick_prelabel`` and ``@task.redbrick_auto_review``: a function as the labeler or the reviewer."""
