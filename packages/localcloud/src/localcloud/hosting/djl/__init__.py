"""What the LMI image has and a model may import; its folder goes on the path of that model server alone."""
