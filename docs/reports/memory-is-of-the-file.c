// SPDX-License-Identifier: Apache-2.0
/*
 * Pages next to one that a guest touches come from userspace_addr instead of the file: what the guest
 *     stores to private memory, the host reads (KVM with shadow paging, seen on 6.18 with KVM_PVM).
 *
 * r0 = host.create_vm()
 * r1 = host.create_guest_memfd(r0, 0x2000, 3)
 * r2 = host.mmap(r1, 0x2000, 3, 1, 0)
 * r3 = host.create_guest_memfd(r0, 0x2000, 1)
 * host.load(r2, 0)
 * host.set_user_memory_region2(r0, 0, 4, 0, 0x2000, r2, r3, 0)
 * r4 = host.create_vcpu(r0)
 * host.guest_load(r4, 0x1000)
 * host.guest_store(r4, 0, 0x53)
 * host.load(r2, 0)
 *
 * In        host.load(r2, 0)
 * expected  0
 * rule      a guest's memory is the file's, whatever is mapped at userspace_addr
 * source    arch/x86/kvm/mmu/mmu.c, kvm_mmu_prefetch_sptes(), by what it does; no report or change
 *           upstream was found
 * came      83
 *
 * Seen on Linux 6.18.15 and 7.3.4 as Debian builds them, x86-64, kvm_amd with npt=0, and on 6.18 with
 *     KVM_PVM:
 * shadow paging. VM type 0; KVM_CAP_GUEST_MEMFD_FLAGS 3 (MMAP, INIT_SHARED).
 *
 * gcc -Wall -o report memory-is-of-the-file.c && ./report
 * Exit code: 0 the kernel does as expected, 1 it does not, 4 it cannot be tried here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CAP_IPC_LOCK 0xeUL
#define KVM_CREATE_GUEST_MEMFD 0xc040aed4UL
#define KVM_CREATE_VM 0xae01UL
#define KVM_SET_USER_MEMORY_REGION2 0x40a0ae49UL

#ifdef __x86_64__
#define GUEST_CR0 0x80010033UL
#define GUEST_CR4 0x20UL
#define GUEST_DOORBELL 0x200000UL
#define GUEST_EFER 0x500UL
#define GUEST_LOAD_AT 0x8040UL
#define GUEST_LOW 0x4UL
#define GUEST_LOWS 0x3UL
#define GUEST_PML4 0x1UL
#define GUEST_PROGRAM 0x40000000UL
#define GUEST_RFLAGS 0x3002UL
#define GUEST_STORE_AT 0x8000UL
#define GUEST_SYSTEM_GPA 0x800000000UL
#define GUEST_SYSTEM_SIZE 0x10000UL
#define GUEST_SYSTEM_SLOT 0x7d00UL
#define KVM_CREATE_VCPU 0xae41UL
#define KVM_EXIT_MEMORY_FAULT 0x27UL
#define KVM_EXIT_MMIO 0x6UL
#define KVM_GET_SREGS 0x8138ae83UL
#define KVM_GET_STATS_FD 0xaeceUL
#define KVM_GET_SUPPORTED_CPUID 0xc008ae05UL
#define KVM_GET_VCPU_MMAP_SIZE 0xae04UL
#define KVM_RUN 0xae80UL
#define KVM_SET_CPUID2 0x4008ae90UL
#define KVM_SET_REGS 0x4090ae82UL
#define KVM_SET_SREGS 0x4138ae84UL
#define RUN_EXIT_REASON 8, 4
#define RUN_IMMEDIATE_EXIT 1, 1
#define RUN_MEMORY_FAULT_FLAGS 32, 8
#define RUN_MEMORY_FAULT_GPA 40, 8
#define RUN_MEMORY_FAULT_SIZE 48, 8
#define RUN_MMIO_DATA 40, 8
#define RUN_MMIO_PHYS_ADDR 32, 8
#endif

struct kvm_create_guest_memfd {
	uint64_t size;
	uint64_t flags;
	uint64_t reserved[6];
};

struct kvm_userspace_memory_region2 {
	uint32_t slot;
	uint32_t flags;
	uint64_t guest_phys_addr;
	uint64_t memory_size;
	uint64_t userspace_addr;
	uint64_t guest_memfd_offset;
	uint32_t guest_memfd;
	uint32_t pad1;
	uint64_t pad2[14];
};

#ifdef __x86_64__
struct kvm_cpuid_entry2 {
	uint32_t function;
	uint32_t index;
	uint32_t flags;
	uint32_t eax;
	uint32_t ebx;
	uint32_t ecx;
	uint32_t edx;
	uint32_t padding[3];
};

struct kvm_dtable {
	uint64_t base;
	uint16_t limit;
	uint16_t padding[3];
};

struct kvm_regs {
	uint64_t rax;
	uint64_t rbx;
	uint64_t rcx;
	uint64_t rdx;
	uint64_t rsi;
	uint64_t rdi;
	uint64_t rsp;
	uint64_t rbp;
	uint64_t r8;
	uint64_t r9;
	uint64_t r10;
	uint64_t r11;
	uint64_t r12;
	uint64_t r13;
	uint64_t r14;
	uint64_t r15;
	uint64_t rip;
	uint64_t rflags;
};

struct kvm_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint8_t type;
	uint8_t present;
	uint8_t dpl;
	uint8_t db;
	uint8_t s;
	uint8_t l;
	uint8_t g;
	uint8_t avl;
	uint8_t unusable;
	uint8_t padding;
};

struct kvm_sregs {
	struct kvm_segment cs;
	struct kvm_segment ds;
	struct kvm_segment es;
	struct kvm_segment fs;
	struct kvm_segment gs;
	struct kvm_segment ss;
	struct kvm_segment tr;
	struct kvm_segment ldt;
	struct kvm_dtable gdt;
	struct kvm_dtable idt;
	uint64_t cr0;
	uint64_t cr2;
	uint64_t cr3;
	uint64_t cr4;
	uint64_t cr8;
	uint64_t efer;
	uint64_t apic_base;
	uint64_t interrupt_bitmap[4];
};

struct kvm_stats_desc {
	uint32_t flags;
	int16_t exponent;
	uint16_t size;
	uint32_t offset;
	uint32_t bucket_size;
};

struct kvm_stats_header {
	uint32_t flags;
	uint32_t name_size;
	uint32_t num_desc;
	uint32_t id_offset;
	uint32_t desc_offset;
	uint32_t data_offset;
};
#endif

#ifdef __x86_64__
static const struct kvm_segment guest_code_segment = { .limit = 0xffffffff, .selector = 0x33, .type = 0xb, .present = 0x1, .dpl = 0x3, .s = 0x1, .l = 0x1, .g = 0x1 };

static const struct kvm_segment guest_data_segment = { .limit = 0xffffffff, .selector = 0x2b, .type = 0x3, .present = 0x1, .dpl = 0x3, .db = 0x1, .s = 0x1, .g = 0x1 };

static const uint64_t guest_tables[][5] = {	/* page, entry, how many, the first, the step */
	{ 1, 0x0, 0x1, 0x800002027, 0x0 },
	{ 2, 0x0, 0x2, 0x800004027, -0x1000 },
	{ 2, 0x2, 0x2, 0x0, 0x800005027 },
	{ 2, 0x4, 0x1, 0x800006027, 0x0 },
	{ 3, 0x0, 0x2, 0x8000000e7, 0x200000 },
	{ 4, 0x0, 0x200, 0xe7, 0x200000 },
	{ 5, 0x0, 0x200, 0xc00000e7, 0x200000 },
	{ 6, 0x0, 0x200, 0x1000000e7, 0x200000 },
};

static const unsigned char guest_load_code[] = { 0x0f, 0xb6, 0x06, 0x48, 0x01, 0xc3, 0x48, 0x01, 0xd6, 0x48, 0xff, 0xc9, 0x75, 0xf2, 0x89, 0x07, 0xeb, 0xfe };

static const unsigned char guest_store_code[] = { 0x88, 0x06, 0x48, 0x01, 0xd6, 0x48, 0xff, 0xc9, 0x75, 0xf6, 0x89, 0x07, 0xeb, 0xfe };
#endif

/* Results: a number (a descriptor and a mapping have one, given out in order), or anything else, as text. */

enum { AS_EXPECTED = 0, DIVERGES = 1, NOT_HERE = 4 };

struct result {
	long number;	/* -1: the result is no number */
	char text[400];
};

/* What this machine lacks for an operation; the operation was not performed. */
static struct result not_here(const char *what)
{
	printf("cannot be tried here: needs %s\n", what);
	exit(NOT_HERE);
}

static struct result number(long value)
{
	struct result r = { value, "" };

	snprintf(r.text, sizeof(r.text), "%ld", value);
	return r;
}

static struct result other(const char *text)
{
	struct result r = { -1, "" };

	snprintf(r.text, sizeof(r.text), "%s", text);
	return r;
}

static struct result failure(int code)
{
	struct result r = { -1, "" };

	switch (code) {
#define NAMED(name) case name: return other(#name)
	NAMED(EPERM); NAMED(ENOENT); NAMED(EINTR); NAMED(EIO); NAMED(ENXIO); NAMED(EBADF); NAMED(EAGAIN); NAMED(ENOMEM);
	NAMED(EACCES); NAMED(EFAULT); NAMED(EBUSY); NAMED(EEXIST); NAMED(EXDEV); NAMED(ENODEV); NAMED(ENOTDIR);
	NAMED(EISDIR); NAMED(EINVAL); NAMED(ENFILE); NAMED(EMFILE); NAMED(ENOTTY); NAMED(ETXTBSY); NAMED(EFBIG);
	NAMED(ENOSPC); NAMED(ESPIPE); NAMED(EROFS); NAMED(EPIPE); NAMED(ENOSYS); NAMED(ELOOP); NAMED(ENODATA);
	NAMED(EOVERFLOW); NAMED(EOPNOTSUPP); NAMED(EHWPOISON);
#undef NAMED
	}
	snprintf(r.text, sizeof(r.text), "errno %d", code);
	return r;
}

/* What a system call returns, where nothing but -1 is a failure. */
static struct result returned(long value)
{
	return value == -1 ? failure(errno) : number(value);
}

#ifdef __x86_64__
/* 0, or why not. */
static struct result zero(long value)
{
	return value == -1 ? failure(errno) : number(0);
}
#endif

/* Handles: descriptors and mappings have numbers, in the order in which they came. */

enum kind { FILE_OF_ANY_KIND, VM, VCPU, PIPE, RING };

/* An open file description, until its last descriptor is closed. */
struct open_file {
	enum kind kind;
	int uses;
	void (*let_go)(struct open_file *);	/* when the last descriptor goes, or NULL */
	void *guest;				/* of a vCPU */
	struct open_file *vcpu;			/* of a VM */
	int stats;				/* of a VM: -1 until it is asked for */
	int ring;				/* of a ring, and who made it */
	pid_t process;
};

struct part {
	unsigned long start, end;
};

struct handle {
	enum { NOTHING, DESCRIPTOR, MAPPED } what;
	int fd;
	struct open_file *file;
	unsigned char *address;			/* of a mapping, and what is left of it */
	struct part *parts;
	int count;
};

#define PAGE 4096UL

#define MOST_HANDLES 1024

#define MOST_PARTS 64

static struct handle handles[MOST_HANDLES];

static int next_handle;

static struct handle *new_handle(void)
{
	if (next_handle == MOST_HANDLES) {
		printf("too many handles\n");
		exit(NOT_HERE);
	}
	return &handles[next_handle++];
}

static struct result opened(int fd, struct open_file *file)
{
	struct handle *h = new_handle();

	file->uses++;
	*h = (struct handle){ .what = DESCRIPTOR, .fd = fd, .file = file };
	return number(h - handles);
}

static struct open_file *new_file(enum kind kind)
{
	struct open_file *file = calloc(1, sizeof(*file));

	file->kind = kind;
	file->stats = -1;
	return file;
}

/* The handle of a descriptor, or NULL where none is open. */
static struct handle *descriptor(long number)
{
	if (number < 0 || number >= next_handle || handles[number].what != DESCRIPTOR)
		return NULL;
	return &handles[number];
}

/* The descriptor, or -1. */
static int fd_of(long number)
{
	struct handle *h = descriptor(number);

	return h ? h->fd : -1;
}

/* Running the program. */

static int reported;	/* operations before this one prepare; the report is about this one */

static int performed;	/* how many there were */

static int diverged;

static char current[2000];

/* Say which operation comes; "do_" only keeps the names here apart from those of the C library. */
static void begin(const char *call)
{
	size_t used = 0;

	while (*call && used < sizeof(current) - 1) {
		if (!strncmp(call, "do_", 3) && (!used || strchr("( ,", current[used - 1])))
			call += 3;
		else
			current[used++] = *call++;
	}
	current[used] = 0;
	printf("%s: ", current);
}

/* Say what came of it; ``known``: what may come as well, as another deviation has it, or NULL. */
static long end(struct result came, const char *expected, const char *rule, const char *known)
{
	const char *colon = *rule ? ": " : "";

	if (!strcmp(came.text, expected)) {
		printf("%s, as expected%s%s\n", came.text, colon, rule);
	} else if (known && !strcmp(came.text, known)) {
		printf("%s, as is known; expected %s%s%s\n", came.text, expected, colon, rule);
	} else {
		printf("%s, expected %s%s%s\n", came.text, expected, colon, rule);
		if (performed < reported) {
			printf("cannot be tried here: this operation only prepares, and gives something else\n");
			exit(NOT_HERE);
		}
		diverged = 1;
	}
	performed++;
	return came.number;
}

#define STEP(call, expected, rule) (begin(#call), end((call), (expected), (rule), NULL))

/* How a process ended that should have answered. */
static struct result lost(int status)
{
	struct result r = other("the process ended without an answer");

	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		return other("no answer in time");
	if (WIFSIGNALED(status))
		snprintf(r.text, sizeof(r.text), "the process was ended by signal %d", WTERMSIG(status));
	return r;
}

/* Perform the program in a process of its own, which it may end, or block. */
static int run_apart(void (*program)(void), int seconds)
{
	int status;
	pid_t pid;

	setvbuf(stdout, NULL, _IONBF, 0);
	pid = fork();
	if (!pid) {
		alarm(seconds);
		program();
		_exit(diverged ? DIVERGES : AS_EXPECTED);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return NOT_HERE;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("%s\n", lost(status).text);
	return DIVERGES;
}

/* Mappings, and what is left of each: munmap(2) of a part leaves parts. */

static struct handle *mapping(long number)
{
	if (number < 0 || number >= next_handle || handles[number].what != MAPPED)
		return NULL;
	return &handles[number];
}

static unsigned long end_of(const struct handle *h)
{
	return h->parts[h->count - 1].end;
}

static unsigned long page_end(unsigned long offset)
{
	return (offset + PAGE - 1) & -PAGE;
}

static struct result no_mapping(void)
{
	return other("no mapping");
}

/* The address of a range of a mapping; NULL unless all of it is mapped. */
static unsigned char *address_of(long number, unsigned long offset, unsigned long length)
{
	struct handle *h = mapping(number);
	unsigned long last = offset + length, mapped = 0, from, to;
	int i;

	if (!h || last < offset || last > end_of(h))
		return NULL;
	for (i = 0; i < h->count; i++) {
		from = h->parts[i].start > offset ? h->parts[i].start : offset;
		to = h->parts[i].end < last ? h->parts[i].end : last;
		if (to > from)
			mapped += to - from;
	}
	return mapped == length ? h->address + offset : NULL;
}

static void whole(struct handle *h, void *address, unsigned long length)
{
	h->what = MAPPED;
	h->address = address;
	if (!h->parts)
		h->parts = calloc(MOST_PARTS, sizeof(*h->parts));
	h->parts[0] = (struct part){ 0, page_end(length) };
	h->count = 1;
}

/* Where locking more memory than this process may would be refused for that alone. */
static void may_lock(void)
{
	uint32_t header[2] = { 0x20080522, 0 }, data[6];	/* capget(2), version 3 */
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	if (syscall(SYS_capget, header, data) || !(data[0] & 1u << CAP_IPC_LOCK))
		not_here("locked memory: CAP_IPC_LOCK, or ulimit -l unlimited");
}

static struct result do_mmap(long fd, unsigned long length, int prot, int flags, unsigned long offset)
{
	void *address;
	struct handle *h;

	if (flags & MAP_LOCKED)
		may_lock();
	address = mmap(NULL, length, prot, flags, fd_of(fd), offset);
	if (address == MAP_FAILED)
		return failure(errno);
	h = new_handle();
	whole(h, address, length);
	return number(h - handles);
}

/* Loads and stores that a signal may answer. */

static sigjmp_buf before;

static volatile sig_atomic_t fault_signal;

static unsigned char *volatile fault_address;

static void on_fault(int number, siginfo_t *info, void *context)
{
	fault_signal = number;
	fault_address = info->si_addr;
	siglongjmp(before, 1);
}

/* With a value of -1 a load. */
static struct result access_byte(long map, unsigned long offset, int value)
{
	volatile unsigned char *byte = address_of(map, offset, 1);
	struct sigaction ours = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, bus, segv;
	struct result r = { -1, "" };

	if (!byte)
		return no_mapping();
	sigaction(SIGBUS, &ours, &bus);
	sigaction(SIGSEGV, &ours, &segv);
	if (!sigsetjmp(before, 1)) {
		if (value < 0)
			r = number(*byte);
		else
			*byte = value, r = number(0);
	} else {
		snprintf(r.text, sizeof(r.text), "%s +0x%lx", fault_signal == SIGBUS ? "SIGBUS" : "SIGSEGV",
			 (unsigned long)(fault_address - mapping(map)->address));
	}
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGSEGV, &segv, NULL);
	return r;
}

static struct result do_load(long number, unsigned long offset)
{
	return access_byte(number, offset, -1);
}

/* VMs, memory slots. */

static int kvm_fd = -1;

static int kvm(void)
{
	if (kvm_fd < 0)
		kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0)
		not_here("/dev/kvm");
	return kvm_fd;
}

static void close_stats(struct open_file *vm)
{
	if (vm->stats >= 0)
		close(vm->stats);
}

static struct result do_create_vm(unsigned long type)
{
	int fd = ioctl(kvm(), KVM_CREATE_VM, type);
	struct open_file *file;

	if (fd < 0)
		return failure(errno);
	file = new_file(VM);
	file->let_go = close_stats;
	return opened(fd, file);
}

static struct result do_create_guest_memfd(long vm, unsigned long size, unsigned long flags)
{
	struct kvm_create_guest_memfd argument = { .size = size, .flags = flags };
	int fd = ioctl(fd_of(vm), KVM_CREATE_GUEST_MEMFD, &argument);

	return fd < 0 ? failure(errno) : opened(fd, new_file(FILE_OF_ANY_KIND));
}

/* A userspace_addr: a mapping, the address itself, or none. */
struct place {
	enum { IS_MAPPING, IS_ADDRESS } what;
	long value;
};

#define MAPPING(number) (struct place){ IS_MAPPING, number }

static struct result do_set_user_memory_region2(long vm, unsigned long slot, unsigned long flags, unsigned long gpa,
						unsigned long size, struct place place, long fd, unsigned long offset)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
		.guest_memfd = fd_of(fd), .guest_memfd_offset = offset, .userspace_addr = place.value,
	};

	if (place.what == IS_MAPPING) {
		region.userspace_addr = (unsigned long)address_of(place.value, 0, 0);
		if (!region.userspace_addr)
			return no_mapping();
	}
	return returned(ioctl(fd_of(vm), KVM_SET_USER_MEMORY_REGION2, &region));
}

#ifdef __x86_64__
/*
 * A guest in long mode at privilege level 3, which loads or stores a byte of guest physical memory, in the first GiB or
 * around 4 GiB, and then stores to the doorbell, where no memory is: KVM_EXIT_MMIO. Its program and page tables are far
 * above.
 */

struct guest_cpu {
	int vcpu;
	unsigned char *memory, *run;
	long run_size, program_pages;
	int faulted;
	uint64_t fault[3];
};

/* struct kvm_run. */
static unsigned char *run_at(struct guest_cpu *g, int offset, int size)
{
	return g->run + offset;
}

static uint64_t run_field(struct guest_cpu *g, int offset, int size)
{
	uint64_t value = 0;

	memcpy(&value, g->run + offset, size);
	return value;
}

/* Run it at a program, for an address and those a page apart; its result is the byte that the doorbell got. */
static struct result run_guest(struct guest_cpu *g, unsigned long program, unsigned long address, int value, int count)
{
	struct kvm_regs regs = {
		.rax = value, .rsi = address, .rdx = PAGE, .rcx = count, .rdi = GUEST_PROGRAM + GUEST_DOORBELL,
		.rip = GUEST_PROGRAM + program, .rflags = GUEST_RFLAGS,
	};
	struct result r = { -1, "" };
	unsigned int reason;
	int failed;

	if (ioctl(g->vcpu, KVM_SET_REGS, &regs))
		return failure(errno);
	do
		failed = ioctl(g->vcpu, KVM_RUN, 0);
	while (failed && errno == EINTR);
	reason = run_field(g, RUN_EXIT_REASON);
	if (failed && (reason != KVM_EXIT_MEMORY_FAULT || errno == EFAULT))
		return failure(errno);
	if (reason == KVM_EXIT_MMIO && run_field(g, RUN_MMIO_PHYS_ADDR) == GUEST_SYSTEM_GPA + GUEST_DOORBELL)
		return number(run_field(g, RUN_MMIO_DATA) & 0xff);
	if (reason == KVM_EXIT_MMIO) {
		/* KVM ends such an access at the start of the next KVM_RUN. */
		*run_at(g, RUN_IMMEDIATE_EXIT) = 1;
		ioctl(g->vcpu, KVM_RUN, 0);
		*run_at(g, RUN_IMMEDIATE_EXIT) = 0;
		return other("MMIO");
	}
	snprintf(r.text, sizeof(r.text), "KVM_EXIT %u", reason);
	return r;
}

/* Load from its own page tables: nothing but the program and what an access needs. */
static struct result idle_guest(struct guest_cpu *g)
{
	return run_guest(g, GUEST_LOAD_AT, GUEST_PROGRAM + GUEST_LOW * PAGE, 0, GUEST_LOWS);
}

static void free_guest(struct guest_cpu *g)
{
	munmap(g->run, g->run_size);
	close(g->vcpu);
	munmap(g->memory, GUEST_SYSTEM_SIZE);
	free(g);
}

static void close_guest(struct open_file *vcpu)
{
	free_guest(vcpu->guest);
	vcpu->guest = NULL;
}

/* The page tables, of which some entries are steps apart, and the program. */
static void fill_guest(unsigned char *memory)
{
	uint64_t *table;
	unsigned int run, i;

	for (run = 0; run < sizeof(guest_tables) / sizeof(*guest_tables); run++) {
		table = (uint64_t *)(memory + guest_tables[run][0] * PAGE);
		for (i = 0; i < guest_tables[run][2]; i++)
			table[guest_tables[run][1] + i] = guest_tables[run][3] + i * guest_tables[run][4];
	}
	memcpy(memory + GUEST_STORE_AT, guest_store_code, sizeof(guest_store_code));
	memcpy(memory + GUEST_LOAD_AT, guest_load_code, sizeof(guest_load_code));
}

/* 0, or an errno. */
static int set_up_guest(struct guest_cpu *g, int vm)
{
	static struct { uint32_t count, padding; struct kvm_cpuid_entry2 entries[256]; } cpuid;
	struct kvm_userspace_memory_region2 region = {
		.slot = GUEST_SYSTEM_SLOT, .guest_phys_addr = GUEST_SYSTEM_GPA, .memory_size = GUEST_SYSTEM_SIZE,
		.userspace_addr = (unsigned long)g->memory,
	};
	struct kvm_sregs sregs;

	cpuid.count = 256;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region) || ioctl(kvm(), KVM_GET_SUPPORTED_CPUID, &cpuid) ||
	    ioctl(g->vcpu, KVM_SET_CPUID2, &cpuid) || ioctl(g->vcpu, KVM_GET_SREGS, &sregs))
		return errno;
	sregs.cs = guest_code_segment;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = guest_data_segment;
	sregs.cr0 = GUEST_CR0;
	sregs.cr3 = GUEST_SYSTEM_GPA + GUEST_PML4 * PAGE;
	sregs.cr4 = GUEST_CR4;
	sregs.efer = GUEST_EFER;
	return ioctl(g->vcpu, KVM_SET_SREGS, &sregs) ? errno : 0;
}

/* Where KVM's binary statistics of a VM have pages_4k, the live stage-2 entries for pages of 4 KiB. */
static long pages_of(int stats)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc one;
	char name[256];
	uint64_t value;
	uint32_t i, at;

	if (pread(stats, &header, sizeof(header), 0) != sizeof(header))
		return -1;
	for (i = 0; i < header.num_desc; i++) {
		at = header.desc_offset + i * (sizeof(one) + header.name_size);
		if (pread(stats, &one, sizeof(one), at) != sizeof(one) ||
		    pread(stats, name, sizeof(name), at + sizeof(one)) < (long)sizeof("pages_4k") ||
		    strcmp(name, "pages_4k"))
			continue;
		if (pread(stats, &value, sizeof(value), header.data_offset + one.offset) == sizeof(value))
			return value;
	}
	not_here("KVM's statistic pages_4k");
	return -1;
}

/* vCPU 0 with the guest. */
static struct result do_create_vcpu(long vm)
{
	struct guest_cpu *g;
	struct open_file *file;
	struct result idle;
	int fd = fd_of(vm), vcpu, stats, code;

	if (fd < 0)
		return failure(EBADF);
	vcpu = ioctl(fd, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return failure(errno);
	g = calloc(1, sizeof(*g));
	g->vcpu = vcpu;
	g->run_size = ioctl(kvm(), KVM_GET_VCPU_MMAP_SIZE, 0);
	g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	g->memory = mmap(NULL, GUEST_SYSTEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g->run == MAP_FAILED || g->memory == MAP_FAILED)
		exit(NOT_HERE);
	fill_guest(g->memory);
	code = set_up_guest(g, fd);
	if (code) {
		free_guest(g);
		return failure(code);
	}
	idle_guest(g);
	idle = idle_guest(g);
	if (idle.number < 0) {
		free_guest(g);
		return idle;
	}
	stats = ioctl(fd, KVM_GET_STATS_FD, 0);
	if (stats >= 0)
		g->program_pages = pages_of(stats);
	close(stats);
	file = new_file(VCPU);
	file->guest = g;
	file->let_go = close_guest;
	handles[vm].file->vcpu = file;
	return opened(dup(vcpu), file);
}

static struct result guest_access(long vcpu, unsigned long program, unsigned long gpa, int value)
{
	struct handle *h = descriptor(vcpu);
	struct guest_cpu *g;
	struct result r;

	if (!h)
		return failure(EBADF);
	if (h->file->kind != VCPU || !h->file->guest)
		return ioctl(h->fd, KVM_RUN, 0) ? failure(errno) : failure(ENOTTY);
	g = h->file->guest;
	r = run_guest(g, program, gpa, value, 1);
	g->faulted = r.number < 0 && run_field(g, RUN_EXIT_REASON) == KVM_EXIT_MEMORY_FAULT;
	if (g->faulted) {
		g->fault[0] = run_field(g, RUN_MEMORY_FAULT_GPA);
		g->fault[1] = run_field(g, RUN_MEMORY_FAULT_SIZE);
		g->fault[2] = run_field(g, RUN_MEMORY_FAULT_FLAGS);
	}
	return r;
}

static struct result do_guest_load(long vcpu, unsigned long gpa)
{
	return guest_access(vcpu, GUEST_LOAD_AT, gpa, 0);
}

static struct result do_guest_store(long vcpu, unsigned long gpa, int value)
{
	struct result r = guest_access(vcpu, GUEST_STORE_AT, gpa, value);

	return r.number < 0 ? r : zero(0);
}
#endif

#ifndef __x86_64__
static struct result no_guest(void)
{
	return not_here("a guest for this architecture: there is one for x86-64");
}

static struct result do_create_vcpu(long vm)
{
	return no_guest();
}

static struct result do_guest_load(long vcpu, unsigned long gpa)
{
	return no_guest();
}

static struct result do_guest_store(long vcpu, unsigned long gpa, int value)
{
	return no_guest();
}
#endif

static void program(void)
{
	long r0, r1, r2, r3, r4;

	r0 = STEP(do_create_vm(0), "0", "");
	r1 = STEP(do_create_guest_memfd(r0, 0x2000, 3), "1", "");
	r2 = STEP(do_mmap(r1, 0x2000, 3, 1, 0), "2", "");
	r3 = STEP(do_create_guest_memfd(r0, 0x2000, 1), "3", "");
	STEP(do_load(r2, 0), "0", "");
	STEP(do_set_user_memory_region2(r0, 0, 4, 0, 0x2000, MAPPING(r2), r3, 0), "0", "");
	r4 = STEP(do_create_vcpu(r0), "4", "");
	STEP(do_guest_load(r4, 0x1000), "0", "");
	STEP(do_guest_store(r4, 0, 0x53), "0", "");
	STEP(do_load(r2, 0), "0", "a guest's memory is the file's, whatever is mapped at userspace_addr");
}

int main(void)
{
	int code;

	reported = 9;
	code = run_apart(program, 60);
	if (code == AS_EXPECTED)
		printf("the kernel does as expected\n");
	if (code == DIVERGES)
		printf("the kernel does not do as expected\n");
	return code;
}
