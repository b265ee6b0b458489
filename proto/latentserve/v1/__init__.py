"""Version 1 of the wire contract; the .proto files beside this one are its documentation."""
