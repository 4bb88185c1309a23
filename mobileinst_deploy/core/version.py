"""The version of this package: what every record, file and page says it was made by."""

__version__ = "0.2.0"
