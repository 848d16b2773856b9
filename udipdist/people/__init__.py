"""Tables of people: ids, phenotypes and covariates, and the design that covariates make."""
