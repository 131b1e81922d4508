"""S3 objects on disk: one file per object, an index in SQLite. Bucket configuration stays with the delegate."""
