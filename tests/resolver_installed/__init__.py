"""The resolver on the installed source of transformers and on changed copies of it."""
