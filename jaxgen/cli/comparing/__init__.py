"""What jaxgen compare is made of: the models, their costs, and the page about them."""
