"""Numbers as people read them."""

GB = 1_000_000_000
MIB = 1024 * 1024
GIB = 1024 * MIB


def human_bytes(count: int) -> str:
    """Decimal units, as model hubs and disks are sold: `98.4 MB`, `5.0 GB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
