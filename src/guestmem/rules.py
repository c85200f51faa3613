# SPDX-License-Identifier: Apache-2.0
"""The rules that a host and its guests live by, numbered.

A constant is the sentence that a violation prints; :data:`RULES` says of each what it asks.  The rules of the language itself,
which every model has, are in :mod:`guestmem.model.errors`.
"""

from guestmem.model.errors import GUARDED, NO_DEADLOCK, NO_PANIC, NO_SLEEP

__all__ = ["RULES"]

HOST_READS_SECRET = "the host never reads a guest's secret"
HOST_WRITES_PRIVATE = "the host never writes a guest's private page"
KERNEL_INTACT = "the host kernel's own memory is written by nobody else"
OUT_OF_SPECULATION = "what speculation can reach through the direct map is no secret"
GIVEN_CLEAN = "a frame given to a guest holds nothing of the host or of another guest"
RETURNED_CLEAN = "a frame given back holds no secret"
FREE_FRAMES = "a free frame is in the direct map, owned by the host, mapped by no guest, flagged by nobody"
SINGLE_OWNER = "a page has at most one private owner"
FREED_UNUSED = "a folio is freed only when nothing refers to it or maps it"
USED_ALIVE = "nothing is used after it was freed"
UNHELD_FREE = "a folio that nobody holds is free"
COUNTERS = "counters equal the holders they count"
DONE_OR_NOTHING = "success means done, failure means nothing changed"
CAUSE = "an operation fails only for a cause"
NO_LOCK_HELD = "no lock is held at return"
PAIRED = "what invalidate_begin began, invalidate_end ends"
CONTENTS_SURVIVE = "contents survive where the contract says so"
BROKEN_UNUSED = "broken memory is used no more, and never again"
UNLOADED_UNUSED = "a driver is unloaded only when no file is its own and no page is out"
WITHIN_FILE = "no page of a file is beyond its end"
REFUSED = "hibernation and unloading are refused while pages are out"

#: Each rule and what it asks, in the order of their numbers, from 1.
RULES = {
    NO_PANIC: "Every access of the host returns: with data, or with an error that its caller can handle.",
    HOST_READS_SECRET: "Neither through its page tables nor through a stale TLB entry does a load of the host see a secret.",
    HOST_WRITES_PRIVATE: "No store of the host reaches a page while a guest has it as private.",
    KERNEL_INTACT: "A frame of the kernel's own, never allocated, keeps what the kernel has in it.",
    OUT_OF_SPECULATION: "Asked for with `--speculation`: no secret is mapped in the direct map, not even in a stale TLB entry.",
    GIVEN_CLEAN: "A frame is cleared before a guest can read it.",
    RETURNED_CLEAN: "A frame is cleared before the allocator gets it back.",
    FREE_FRAMES: "The next user of a free frame can map it and use it as ordinary memory.",
    SINGLE_OWNER: "No two guests have the same frame as private.",
    FREED_UNUSED: "When a folio is freed no page cache, page table or guest still has it.",
    USED_ALIVE: "Files, slots and what else has references live as long as anybody uses them, and are freed once.",
    UNHELD_FREE: "When the last reference is dropped the folio goes back to the allocator: none leaks.",
    COUNTERS: "References to folios and modules, and open files that forbid an image of memory, are counted exactly.",
    DONE_OR_NOTHING: "An operation that fails leaves everything as it was, or gives a page up for good: it is never used again.",
    CAUSE: "Each error has a reason that the caller can know: the state of the file, or a request that was refused.",
    NO_LOCK_HELD: "Whoever calls the library gets every lock back.",
    PAIRED: "When no operation is under way no guest waits for the end of an invalidation.",
    CONTENTS_SURVIVE: "What a guest wrote stays where it, or the host, looks for it until the VM stops or the VMM discards it.",
    BROKEN_UNUSED: "After memory_failure() nobody gets the frame: not the guest, not the host, not the allocator.",
    UNLOADED_UNUSED: "A driver's code stays as long as anybody may call it.",
    REFUSED: "No image of memory is made, and no driver unloaded, while a guest has pages that only the driver can take back.",
    GUARDED: "A field that a lock guards changes only while the thread holds the lock ([which lock guards what](steps.md)).",
    NO_SLEEP: "Whoever holds a spin lock takes no mutex or semaphore, allocates nothing and waits for no grace period.",
    NO_DEADLOCK: "No thread waits for ever for something that nobody will do.",
    WITHIN_FILE: "What is not below i_size is not in the page cache, not mapped by a process, not bound to a guest.",
}
