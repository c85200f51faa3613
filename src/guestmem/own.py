# SPDX-License-Identifier: Apache-2.0
"""All that a file of your own imports: the words of the language, what can be overridden, the hosts and their casts.

``from guestmem.own import GuestMemfd, OnKvm, part``.  ``guestmem hooks`` says what can be overridden.
"""

from errno import EAGAIN, EBADF, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP, EPERM

from guestmem.guest_memfd.library import Driver, GuestMemfd, Pm, Protection
from guestmem.hypervisors.gunyah import EagerGunyahDriver, Gunyah, GunyahDriver
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.hypervisors.pkvm import Pkvm, PkvmDriver
from guestmem.machine.arch import Arch
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame, Pfn
from guestmem.machine.guest import Expects, Gfn, Guest
from guestmem.machine.machine import Enforcement, Hypervisor, Machine
from guestmem.mm.exception import copy_from_kernel_nofault, kernel_load, kernel_store, load_unaligned_zeropad, read_present_page
from guestmem.mm.filemap import AddressSpace, Pgoff, Pin, filemap_grab_folio, filemap_lock_folio
from guestmem.mm.folio import Folio, Kernel, alloc_folio, folio_page, folio_put, folio_try_get
from guestmem.mm.secretmem import Secretmem
from guestmem.model import (
    Index,
    Mutex,
    Record,
    RwSem,
    World,
    always,
    array,
    bounded,
    charge,
    choose,
    current,
    guards,
    may,
    panic,
    part,
    reached,
    require,
    sometimes,
    step,
    thread,
    when,
)
from guestmem.scenarios.cast import Cast, Kcore, Parts, PlainRead, Process, RunningVm, Vcpus, Vmm, Walker, Zeropad
from guestmem.scenarios.huge import HugeOnGunyah, HugeOnKvm
from guestmem.scenarios.hypervisors import (
    BlocksOnKvm,
    EagerOnGunyah,
    EagerPagesOnGunyah,
    GunyahHost,
    KvmHost,
    OnGunyah,
    OnKvm,
    OnPkvm,
    PartsOnKvm,
    PkvmHost,
    TwoOnGunyah,
    TwoOnKvm,
)
from guestmem.scenarios.secretmem import SecretMemory
from guestmem.scenarios.users import GpcDriver, Gup, PfnCache

__all__ = [
    "EAGAIN",
    "EBADF",
    "EBUSY",
    "EEXIST",
    "EFAULT",
    "EINTR",
    "EINVAL",
    "ENODEV",
    "ENOENT",
    "ENOMEM",
    "EOPNOTSUPP",
    "EPERM",
    "AddressSpace",
    "Arch",
    "BlocksOnKvm",
    "Cast",
    "Content",
    "Cpu",
    "Driver",
    "EagerGunyahDriver",
    "EagerOnGunyah",
    "EagerPagesOnGunyah",
    "Enforcement",
    "Expects",
    "Folio",
    "Frame",
    "Gfn",
    "GpcDriver",
    "Guest",
    "GuestMemfd",
    "Gunyah",
    "GunyahDriver",
    "GunyahHost",
    "Gup",
    "HugeOnGunyah",
    "HugeOnKvm",
    "Hypervisor",
    "Index",
    "Kcore",
    "Kernel",
    "KvmDriver",
    "KvmHost",
    "Machine",
    "Mutex",
    "OnGunyah",
    "OnKvm",
    "OnPkvm",
    "Parts",
    "PartsOnKvm",
    "Pfn",
    "PfnCache",
    "Pgoff",
    "Pin",
    "Pkvm",
    "PkvmDriver",
    "PkvmHost",
    "PlainRead",
    "Pm",
    "Process",
    "Protection",
    "Record",
    "RunningVm",
    "RwSem",
    "SecretMemory",
    "Secretmem",
    "TwoOnGunyah",
    "TwoOnKvm",
    "Vcpus",
    "Vmm",
    "Walker",
    "World",
    "Zeropad",
    "alloc_folio",
    "always",
    "array",
    "bounded",
    "charge",
    "choose",
    "copy_from_kernel_nofault",
    "current",
    "filemap_grab_folio",
    "filemap_lock_folio",
    "folio_page",
    "folio_put",
    "folio_try_get",
    "guards",
    "kernel_load",
    "kernel_store",
    "load_unaligned_zeropad",
    "may",
    "panic",
    "part",
    "reached",
    "read_present_page",
    "require",
    "sometimes",
    "step",
    "thread",
    "when",
]
