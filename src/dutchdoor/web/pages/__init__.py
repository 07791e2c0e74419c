"""The pages that people see, each with its forms, and what they are made of."""
