"""The embedded demo: two small drawn worlds and the recipe that trains the shipped models on them."""
