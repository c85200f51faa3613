from guestmem.own import Cpu, Gfn, Guest, GuestMemfd, OnGunyah, Pgoff, part


class Mine(GuestMemfd):
    def guest_fault(self, cpu: Cpu, guest: Guest, gfn: Gfn) -> int:
        self.mapping.invalidate_lock.down_read()
        err = self.provide_page(cpu, guest, Pgoff(gfn))
        if err == 0:
            self.mapping.invalidate_lock.up_read()
        return err


class MyWorld(OnGunyah):
    file: Mine = part()
