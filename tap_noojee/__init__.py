"""Singer tap for the call recordings of a Noojee Contact PBX."""
