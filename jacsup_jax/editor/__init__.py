"""Edit photos with a trained model: a web page and a command."""
