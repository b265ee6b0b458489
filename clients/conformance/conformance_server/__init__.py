"""The servers that the conformance cases are run against, whole or broken on purpose."""
