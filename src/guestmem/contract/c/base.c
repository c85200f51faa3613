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

/* 0, or why not. */
static struct result zero(long value)
{
	return value == -1 ? failure(errno) : number(0);
}

static struct result pair(long first, long second)
{
	struct result r = { -1, "" };

	snprintf(r.text, sizeof(r.text), "(%ld, %ld)", first, second);
	return r;
}

/* Bytes, as "00*4095 07"; from the 25th change on, only how many there are and their FNV-1a hash. */
static struct result bytes(const unsigned char *data, size_t length)
{
	struct result r = { -1, "" };
	size_t at = 0, same, used = 0, runs = 0, i;
	uint32_t hash = 2166136261u;

	for (i = 0; i < length; i++)
		hash = (hash ^ data[i]) * 16777619u;
	used += sprintf(r.text, "%zu bytes:", length);
	for (; at < length && runs < 24; at += same, runs++) {
		for (same = 1; at + same < length && data[at + same] == data[at]; same++)
			;
		used += sprintf(r.text + used, same > 1 ? " %02x*%zu" : " %02x", data[at], same);
	}
	if (at < length)
		sprintf(r.text + used, " ... hash %08x", hash);
	return r;
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

#define STEP_KNOWN(call, expected, rule, known) (begin(#call), end((call), (expected), (rule), (known)))

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

/* fork(2), an operation in the child, and its result through a pipe: what the child changes of its own is gone then. */

static int answers[2];

static pid_t child;

static int in_the_child(void)
{
	if (pipe(answers))
		exit(NOT_HERE);
	fflush(stdout);
	child = fork();
	return child == 0;
}

static struct result answer(struct result r)
{
	if (write(answers[1], &r, sizeof(r)) != sizeof(r))
		_exit(1);
	_exit(0);
}

static struct result answered(void)
{
	struct result r;
	int status, got;

	close(answers[1]);
	got = read(answers[0], &r, sizeof(r)) == sizeof(r);
	close(answers[0]);
	if (waitpid(child, &status, 0) != child || (WIFEXITED(status) && WEXITSTATUS(status) == NOT_HERE))
		exit(NOT_HERE);
	return got ? r : lost(status);
}

#define do_in_child(call) (in_the_child() ? answer(call) : answered())
