"""A figure as the content of a file, for slides and papers."""

from io import BytesIO

from matplotlib.figure import Figure

DOTS_PER_INCH = 300
# No date and no version, so that the same figure is the same file.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}


def image_of(figure: Figure, ending: str) -> bytes:
    """`png` or `pdf`; to be called in `plain_style`."""
    file = BytesIO()
    figure.savefig(file, format=ending, dpi=DOTS_PER_INCH, metadata=METADATA[ending])
    return file.getvalue()
