"""`python -m meshllm`: hand over to the operator's tool."""

from meshllm.cli.main import entry

if __name__ == "__main__":
    entry()
