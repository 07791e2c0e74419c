"""The verbs: what the authority does with records, one file per idea."""
