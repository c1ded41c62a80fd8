"""What figures are drawn with, of tables and reports alike, and the figures that both show."""
