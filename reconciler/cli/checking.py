"""placeholder until core.manifests stands"""
def validate(path: str) -> None:
    """v"""
def plan(path: str = ".") -> None:
    """p"""
