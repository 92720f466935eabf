"""A soak: thousands of hours through Meltano into Postgres, with kills and failures."""
