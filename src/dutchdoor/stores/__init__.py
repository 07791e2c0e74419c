"""Where records are kept, one file per backend. `dutchdoor.stores.base` says what each of them must do."""
