"""The public test kit: what a test of a program that uses tq, or of a part of tq, stands on."""
