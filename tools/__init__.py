"""What the Makefile's commands and the tests need to run things locally. Not part of the package."""
