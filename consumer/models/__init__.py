"""The platforms' resources, as their REST APIs and inline event data give them."""
