"""Apache Airflow provider for the M2P Prepaid Platform. Imports nothing, so that provider discovery stays cheap."""

__version__ = "0.1.0"
