"""The `mesh-llm` command: parsing only."""


def main() -> int:
    return 0
