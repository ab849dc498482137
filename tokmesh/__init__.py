"""TokMesh: a session and token server. It answers one question at a very high rate: is this token good?"""

__version__ = "0.1.0"
