"""The kernel's word on the host's clock, whatever this host's clock is."""


def kernel_answers(answer: str) -> tuple[str, ...]:
    """A wrapper of a process to which the kernel gives `answer`, as strace writes it, about its clock; nothing else is traced."""
    calls = "adjtimex,clock_adjtime"
    return ("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{answer}")
