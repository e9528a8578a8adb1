"""Labels and masks on their way to the server."""
