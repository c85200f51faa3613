// SPDX-License-Identifier: Apache-2.0
/*
 * A mapping that mremap has grown past offset 2^63 gives pages past the end of the file, which no hole
 *           takes away (seen on 6.18).
 *
 * r0 = host.create_vm()
 * r1 = host.create_guest_memfd(r0, 0x1000, 3)
 * r2 = host.mmap(r1, 0x1000, 3, 1, 0x7fffffffffffe000)
 * host.mremap(r2, 0x3000)
 * host.load(r2, 0x2000)
 *
 * In        host.load(r2, 0x2000)
 * expected  SIGBUS +0x2000
 * rule      a fault past the end of a file is a SIGBUS, however far past it
 * source    virt/kvm/guest_memfd.c, kvm_gmem_fault_user_mapping(): (loff_t)pgoff << PAGE_SHIFT is
 *           negative there, and so below i_size; mm/mremap.c grows a mapping without a look at the
 *           largest offset; no report or change upstream was found
 * came      0
 *
 * Seen on Linux 6.18.15, 7.2.12 and 7.3.4 as Debian builds them, on x86-64 and on arm64, and on 6.18
 *     with KVM_PVM.
 * VM type 0; KVM_CAP_GUEST_MEMFD_FLAGS 3 (MMAP, INIT_SHARED).
 *
 * gcc -Wall -o report mremap-past-largest-offset.c && ./report
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

struct kvm_create_guest_memfd {
	uint64_t size;
	uint64_t flags;
	uint64_t reserved[6];
};

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

/* 0, or why not. */
static struct result zero(long value)
{
	return value == -1 ? failure(errno) : number(0);
}

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

/* To another length, wherever there is room. */
static struct result do_mremap(long number, unsigned long length)
{
	struct handle *h = mapping(number);
	void *moved;

	if (!address_of(number, 0, 0))
		return no_mapping();
	moved = mremap(h->address, end_of(h), length, MREMAP_MAYMOVE);
	if (moved == MAP_FAILED)
		return failure(errno);
	whole(h, moved, length);
	return zero(0);
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

static void program(void)
{
	long r0, r1, r2;

	r0 = STEP(do_create_vm(0), "0", "");
	r1 = STEP(do_create_guest_memfd(r0, 0x1000, 3), "1", "");
	r2 = STEP(do_mmap(r1, 0x1000, 3, 1, 0x7fffffffffffe000UL), "2", "");
	STEP(do_mremap(r2, 0x3000), "0", "");
	STEP(do_load(r2, 0x2000),
		"SIGBUS +0x2000", "a fault past the end of a file is a SIGBUS, however far past it");
}

int main(void)
{
	int code;

	reported = 4;
	code = run_apart(program, 60);
	if (code == AS_EXPECTED)
		printf("the kernel does as expected\n");
	if (code == DIVERGES)
		printf("the kernel does not do as expected\n");
	return code;
}
