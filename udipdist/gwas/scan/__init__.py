"""A scan of a genome: plan, part, finish, and the verbs for them."""
