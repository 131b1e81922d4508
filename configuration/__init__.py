"""pipeline.yaml, checked, and what follows from it alone: names, parameters, images, code. Imports no AWS library."""
