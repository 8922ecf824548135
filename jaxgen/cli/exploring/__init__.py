"""What `jaxgen explore` is made of."""
