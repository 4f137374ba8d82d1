"""What crosses a socket: message structs, path constants, and the parsing of model references."""
