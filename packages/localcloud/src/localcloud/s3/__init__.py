"""S3 objects on disk: one file an object, an index in SQLite. Bucket configuration stays with the delegate."""
