# SPDX-License-Identifier: Apache-2.0
"""What real arm64 kernels did when the host ran into a page it had given away; the model does the same.

Observed on Debian kernels under QEMU (virt, virtualization=on, cpu max, kvm-arm.mode=protected), 2026-11-23: a module
runs the kernel's own load_unaligned_zeropad() at the end of the page before page N, which holds "abcdefgh".

=====  ===================  ====================  ==================================================
Linux  page N belongs to    direct map of N       the host saw
=====  ===================  ====================  ==================================================
6.12   the hypervisor       mapped                EL2 BUG, "HYP panic"
6.12   the hypervisor       unmapped              stage-1 fault, fixed up
7.3    a protected VM       unmapped              fixed up: 0x0000000068676665
7.3    a protected VM       mapped again          fixed up: 0x0000000068676665; the page stays denied
7.3    a protected VM       mapped, plain read    the page is reclaimed by force; it reads as zero
7.3    the hypervisor       mapped, plain read    oops
7.3    a protected VM       the VMM's mapping     SIGSEGV
=====  ===================  ====================  ==================================================
"""

import pytest

from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.mm.direct_map import (
    flush_tlb_kernel_range,
    set_direct_map_default_noflush,
    set_direct_map_invalid_noflush,
)
from guestmem.mm.exception import Loaded, kernel_load, load_unaligned_zeropad
from guestmem.mm.filemap import Pgoff, map_user, user_access
from guestmem.model import Verdict, alone
from guestmem.scenarios.hypervisors import OnPkvm


class Provoke:
    """The module of the recordings: frame 1 is the page before, frame 2 is page N."""

    def __init__(self, el2_panics: bool) -> None:
        self.host = OnPkvm(el2_panics=el2_panics)
        self.before, self.page = self.host.machine.frames[1], self.host.machine.frames[2]
        self.cpu = self.host.machine.cpus[1]
        self.before.content = Content.HOST

    def belongs_to_the_hypervisor(self) -> None:
        self.page.stage2 = False

    def belongs_to_a_protected_vm(self) -> None:
        guest = self.host.machine.guests[0]
        guest.running = True
        with alone():
            assert self.host.hypervisor.host_donate_guest(guest, Gfn(0), self.page) == 0
            assert guest.touch(Gfn(0))
        assert self.page.content is Content.SECRET_0

    def unmap(self, page: Frame) -> None:
        with alone():
            set_direct_map_invalid_noflush(self.host.kernel, page, 0)
            flush_tlb_kernel_range(self.host.machine, page, 0)

    def map_again(self, page: Frame) -> None:
        with alone():
            set_direct_map_default_noflush(self.host.kernel, page, 0)

    def zeropad(self) -> Loaded:
        with alone():
            return load_unaligned_zeropad(self.host.kernel, self.cpu, self.before)

    def read(self) -> None:
        with alone():
            kernel_load(self.host.kernel, self.cpu, self.page)


def test_6_12_mapped_page_of_the_hypervisor_panics_at_el2() -> None:
    provoke = Provoke(el2_panics=True)
    provoke.belongs_to_the_hypervisor()
    with pytest.raises(Verdict, match="HYP panic"):
        provoke.zeropad()


def test_6_12_unmapped_page_of_the_hypervisor_is_fixed_up() -> None:
    provoke = Provoke(el2_panics=True)
    provoke.belongs_to_the_hypervisor()
    provoke.unmap(provoke.page)
    assert provoke.zeropad() is Loaded.PADDED


def test_7_3_page_of_a_guest_is_fixed_up_mapped_or_not_and_stays_denied() -> None:
    provoke = Provoke(el2_panics=False)
    provoke.belongs_to_a_protected_vm()
    provoke.unmap(provoke.page)
    assert provoke.zeropad() is Loaded.PADDED
    provoke.map_again(provoke.page)
    assert provoke.zeropad() is Loaded.PADDED
    assert not provoke.page.stage2
    assert provoke.page.content is Content.SECRET_0


def test_7_3_plain_read_of_a_guests_page_reclaims_it_as_zero() -> None:
    provoke = Provoke(el2_panics=False)
    provoke.belongs_to_a_protected_vm()
    provoke.read()
    assert provoke.page.stage2
    assert provoke.page.content is Content.ZERO
    assert provoke.host.machine.guests[0].entries[0].poison


def test_7_3_plain_read_of_a_page_of_the_hypervisor_oopses() -> None:
    provoke = Provoke(el2_panics=False)
    provoke.belongs_to_the_hypervisor()
    with pytest.raises(Verdict, match="hypervisor-protected memory"):
        provoke.read()


def test_7_3_read_through_the_vmms_mapping_is_a_signal() -> None:
    provoke = Provoke(el2_panics=False)
    provoke.belongs_to_a_protected_vm()
    mapping = provoke.host.file.mapping
    with alone():
        map_user(mapping, Pgoff(0), provoke.host.kernel.folios[2])
        assert user_access(provoke.host.machine, mapping, Pgoff(0), write=False) is Fault.S1PTW
    assert provoke.page.content is Content.SECRET_0
