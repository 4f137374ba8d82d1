"""SSH connections and SFTP."""
