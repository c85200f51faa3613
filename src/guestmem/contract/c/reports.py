# SPDX-License-Identifier: Apache-2.0
"""Reports of what a kernel does otherwise: of a divergence that was found here, and of a known deviation."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import guestmem
from guestmem.contract.c.write import Report
from guestmem.contract.deviations import Deviation
from guestmem.contract.minimise import Divergence
from guestmem.contract.program import Program, parsed, perform
from guestmem.contract.rows import rows
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE
from guestmem.linux.kvm import Kvm
from guestmem.linux.probe import CAPABILITIES, kvm_modules, lines

__all__ = ["configuration", "name_of", "of_deviation", "of_divergence"]


def configuration(program: Program) -> Iterator[str]:
    """This kernel and machine, and the VMs of a program, as lines."""
    yield f"guestmem {guestmem.__version__} saw it on this machine:"
    yield f"Linux {platform.release()}, {platform.machine()}, pages of {PAGE_SIZE} bytes"
    for module in kvm_modules():
        parameters = sorted(Path(f"/sys/module/{module}/parameters").glob("*"))
        values = (f"{path.name}={' '.join(lines(str(path)))}" for path in parameters)
        yield f"{module}: {' '.join(values) or 'no parameters'}"
    types = sorted({op.arguments[0] if op.arguments else 0 for op in program if op.name == "create_vm"})
    yield f"VM type {', '.join(map(str, types))}" if types else "no VM"
    try:
        with Kvm() as kvm, kvm.create_vm() as vm:
            has = (f"{name} {vm.check_extension(getattr(uapi, f'KVM_CAP_{name}'))}" for name in CAPABILITIES)
            yield f"capabilities of a VM: {', '.join(has)}"
    except OSError as error:
        yield f"capabilities: {error}"


def of_divergence(divergence: Divergence, model: SimulatedHost) -> Report:
    """What nothing explains, whose last operation it is about; ``model`` is as it was when it was found."""
    program = divergence.program
    steps = perform(model, program)
    where = list(configuration(program))
    return Report(divergence.title(), program, steps, len(program) - 1, divergence.got, divergence.rule, "", where)


def name_of(deviation: Deviation) -> str:
    """The name of the C file of a known deviation, after its first row."""
    return deviation.rows[0].partition(".test_")[2].replace("_", "-") + ".c"


def of_deviation(deviation: Deviation, where: Sequence[str] | None = None) -> Report:
    """A known deviation; ``where``: the kernels and machines where it was seen, or this one."""
    program = parsed(deviation.program)
    steps = perform(SimulatedHost(), program)
    reported = len(program) - 1
    if deviation.operation:
        wanted = deviation.operation, deviation.rule, deviation.expected
        reported = [(op.name, step.rule, step.result) for op, step in zip(program, steps, strict=True)].index(wanted)
    rule = deviation.rule or next(row.rule for row in rows() if row.name.startswith(deviation.rows))
    where = list(configuration(program)) if where is None else where
    title = f"{deviation.explanation[0].upper()}{deviation.explanation[1:]} ({deviation.kernels})."
    return Report(title, program, steps, reported, deviation.observed, rule, deviation.source, where)
