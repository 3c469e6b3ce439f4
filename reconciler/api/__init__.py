"""What users may write and what we report: one document at a time, as pydantic models.

These models are the single source of the CRDs, the JSON Schemas and the reference pages. They
check what can be told from one document alone; what needs a second one is `core.manifests`.
"""
