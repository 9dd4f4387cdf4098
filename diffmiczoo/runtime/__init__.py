"""The same numbers, faster: knows torch and timm, nothing of the paper."""
