"""One outside thing each: files, processes, sockets, databases; no knowledge of roles."""
