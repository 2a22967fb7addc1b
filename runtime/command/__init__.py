"""What the subcommands do, one module each; `__main__` holds their options."""
