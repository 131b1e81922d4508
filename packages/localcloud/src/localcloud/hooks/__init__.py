"""Everything that localcloud touches of MiniStack: no other package imports it, and each private name is in `privates`.

    application   import it once with its environment set, its ASGI app, its services, start and reset
    scope         the caller of a piece of work: account and region
    states        what its services keep, and saving that while it runs
    buckets       S3's buckets and their configuration; objects are ours
    logs  metrics  functions  bus  topics  stacks      one service each
    patches       what is put in the place of its functions, and back

MiniStack reads part of its environment when it is imported: hence every import is inside a function, and only
`application.Application` may be the first.
"""
