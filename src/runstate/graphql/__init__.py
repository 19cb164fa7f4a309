"""How it is asked. The only package that knows Strawberry."""
