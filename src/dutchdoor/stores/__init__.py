"""Where records are kept, one file a place. What every one of them must do is said in `dutchdoor.stores.base`."""
