"""The password that all driver tests log in with."""
PASSWORD = "driver's secret"
