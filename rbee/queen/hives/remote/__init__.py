"""The hive of another machine: installed, started, reached and ended over SSH."""
