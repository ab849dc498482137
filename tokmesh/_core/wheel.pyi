class Wheel:
    tick: int
    size: int
