"""TaskFlow decorators that use a function as labeler or reviewer."""
