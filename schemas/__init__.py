"""The streams' schemas, one JSON file each; installed as the package `tap_noojee.schemas`."""
