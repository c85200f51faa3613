# SPDX-License-Identifier: Apache-2.0
"""/dev/gunyah by its ioctls, as Android's kernels (android14-6.1 and later) have them.  Never run: no machine with Gunyah.

Numbers and layouts are those of include/uapi/linux/gunyah.h in the series "Drivers for Gunyah hypervisor" v14
(2023, https://lore.kernel.org/r/20230613172054.3959700-1-quic_eberman@quicinc.com) and in android14-6.1, which adds
the ioctls of type 'A'.
"""

from __future__ import annotations

import ctypes
import os

from guestmem.linux.calls import Descriptor, ioctl, posix

__all__ = ["Gunyah", "GunyahVcpu", "GunyahVm"]

GH_MEM_ALLOW_READ = 1
GH_MEM_ALLOW_WRITE = 2
GH_MEM_ALLOW_EXEC = 4
GH_FN_VCPU = 1


class gh_userspace_memory_region(ctypes.Structure):
    """struct gh_userspace_memory_region."""

    _fields_ = [
        ("label", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("guest_phys_addr", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("userspace_addr", ctypes.c_uint64),
    ]


class gh_vm_dtb_config(ctypes.Structure):
    """struct gh_vm_dtb_config."""

    _fields_ = [("guest_phys_addr", ctypes.c_uint64), ("size", ctypes.c_uint64)]


class gh_fn_desc(ctypes.Structure):
    """struct gh_fn_desc."""

    _fields_ = [("type", ctypes.c_uint32), ("arg_size", ctypes.c_uint32), ("arg", ctypes.c_uint64)]


def _io(kind: str, number: int) -> int:
    return ord(kind) << 8 | number


def _iow(kind: str, number: int, argument: type[ctypes.Structure]) -> int:
    return 1 << 30 | ctypes.sizeof(argument) << 16 | _io(kind, number)


GH_CREATE_VM = _io("G", 0)
GH_VM_SET_USER_MEM_REGION = _iow("G", 1, gh_userspace_memory_region)
GH_VM_SET_DTB_CONFIG = _iow("G", 2, gh_vm_dtb_config)
GH_VM_START = _io("G", 3)
GH_VM_ADD_FUNCTION = _iow("G", 4, gh_fn_desc)
GH_VCPU_RUN = _io("G", 5)
GH_VCPU_MMAP_SIZE = _io("G", 6)
GH_VM_ANDROID_LEND_USER_MEM = _iow("A", 0x11, gh_userspace_memory_region)


class Gunyah(Descriptor):
    """/dev/gunyah.  Raises :class:`CallError`: ENOENT without Gunyah."""

    def __init__(self, path: str = "/dev/gunyah") -> None:
        super().__init__(posix(os.open, "open", path=path, flags=os.O_RDWR | os.O_CLOEXEC))

    def create_vm(self) -> GunyahVm:
        """GH_CREATE_VM."""
        return GunyahVm(ioctl(self.fileno(), "GH_CREATE_VM", GH_CREATE_VM))


class GunyahVm(Descriptor):
    """A virtual machine, made by :meth:`Gunyah.create_vm`; closing it is the only way to take lent memory back."""

    def share(self, label: int, gpa: int, size: int, userspace_addr: int, flags: int) -> None:
        """GH_VM_SET_USER_MEM_REGION: the VM and the host both have the memory.  ``flags``: GH_MEM_ALLOW_*."""
        self._region("GH_VM_SET_USER_MEM_REGION", GH_VM_SET_USER_MEM_REGION, label, gpa, size, userspace_addr, flags)

    def lend(self, label: int, gpa: int, size: int, userspace_addr: int, flags: int) -> None:
        """GH_VM_ANDROID_LEND_USER_MEM: only the VM has the memory.  ``flags``: GH_MEM_ALLOW_*."""
        self._region("GH_VM_ANDROID_LEND_USER_MEM", GH_VM_ANDROID_LEND_USER_MEM, label, gpa, size, userspace_addr, flags)

    def _region(self, name: str, request: int, label: int, gpa: int, size: int, userspace_addr: int, flags: int) -> None:
        argument = gh_userspace_memory_region(label, flags, gpa, size, userspace_addr)
        given = {"label": label, "flags": flags, "gpa": gpa, "size": size, "userspace_addr": userspace_addr}
        ioctl(self.fileno(), name, request, argument, **given)

    def set_dtb(self, gpa: int, size: int) -> None:
        """GH_VM_SET_DTB_CONFIG: where in guest memory the devicetree is."""
        ioctl(self.fileno(), "GH_VM_SET_DTB_CONFIG", GH_VM_SET_DTB_CONFIG, gh_vm_dtb_config(gpa, size), gpa=gpa, size=size)

    def start(self) -> None:
        """GH_VM_START."""
        ioctl(self.fileno(), "GH_VM_START", GH_VM_START)

    def add_vcpu(self, id: int = 0) -> GunyahVcpu:
        """GH_VM_ADD_FUNCTION with GH_FN_VCPU."""
        argument = ctypes.c_uint32(id)
        function = gh_fn_desc(GH_FN_VCPU, ctypes.sizeof(argument), ctypes.addressof(argument))
        return GunyahVcpu(ioctl(self.fileno(), "GH_VM_ADD_FUNCTION", GH_VM_ADD_FUNCTION, function, id=id))


class GunyahVcpu(Descriptor):
    """A virtual CPU, made by :meth:`GunyahVm.add_vcpu`."""

    def mmap_size(self) -> int:
        """GH_VCPU_MMAP_SIZE: bytes of struct gh_vcpu_run, to be mapped from this descriptor."""
        return ioctl(self.fileno(), "GH_VCPU_MMAP_SIZE", GH_VCPU_MMAP_SIZE)

    def run(self) -> None:
        """GH_VCPU_RUN: until it exits."""
        ioctl(self.fileno(), "GH_VCPU_RUN", GH_VCPU_RUN)
