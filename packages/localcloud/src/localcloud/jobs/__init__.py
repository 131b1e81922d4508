"""Jobs as SageMaker runs them, without Docker: one supervised process tree per job in its own directory."""
