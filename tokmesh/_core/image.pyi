from tokmesh._core.survey import Survey

UNTAKEN_MAX: int

class Image:
    active: bool
    count: int
    survey: Survey
    def begin(self, end: int) -> None: ...
    def step(self, budget: int) -> tuple[bytes, bool]: ...
    def abandon(self) -> None: ...
