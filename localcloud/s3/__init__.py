"""S3 objects on disk: one file an object, an index in SQLite. Buckets and their configuration stay with the delegate."""
