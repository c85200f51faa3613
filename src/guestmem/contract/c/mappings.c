/* Mappings, and what is left of each: munmap(2) of a part leaves parts. */

#define ALL (~0UL)

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

static void forget_part(struct handle *h, unsigned long from, unsigned long to)
{
	struct part kept[MOST_PARTS + 1];
	int i, count = 0;

	for (i = 0; i < h->count && count < MOST_PARTS - 1; i++) {
		struct part p = h->parts[i];

		if (p.start < from && p.start < p.end)
			kept[count++] = (struct part){ p.start, p.end < from ? p.end : from };
		if (p.end > to)
			kept[count++] = (struct part){ p.start > to ? p.start : to, p.end };
	}
	memcpy(h->parts, kept, count * sizeof(*kept));
	h->count = count;
}

/* A part of a mapping, or ALL that is left of it. */
static struct result do_munmap(long number, unsigned long offset, unsigned long length)
{
	unsigned char *address = address_of(number, offset, length == ALL ? 0 : length);
	struct handle *h = mapping(number);
	int i;

	if (!address)
		return no_mapping();
	if (length == ALL) {
		for (i = 0; i < h->count; i++)
			munmap(h->address + h->parts[i].start, h->parts[i].end - h->parts[i].start);
		h->what = NOTHING;
		return zero(0);
	}
	if (munmap(address, length))
		return failure(errno);
	forget_part(h, offset, page_end(offset + length));
	if (!h->count)
		h->what = NOTHING;
	return zero(0);
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

static struct result do_mprotect(long number, unsigned long offset, unsigned long length, int prot)
{
	unsigned char *address = address_of(number, offset, length);

	return address ? zero(mprotect(address, length, prot)) : no_mapping();
}

static struct result do_madvise(long number, unsigned long offset, unsigned long length, int advice)
{
	unsigned char *address = address_of(number, offset, length);

	return address ? zero(madvise(address, length, advice)) : no_mapping();
}

static struct result do_mlock(long number, unsigned long offset, unsigned long length)
{
	unsigned char *address = address_of(number, offset, length);

	may_lock();
	return address ? zero(mlock(address, length)) : no_mapping();
}

static struct result do_munlock(long number, unsigned long offset, unsigned long length)
{
	unsigned char *address = address_of(number, offset, length);

	return address ? zero(munlock(address, length)) : no_mapping();
}

static struct result do_msync(long number, unsigned long offset, unsigned long length, int flags)
{
	unsigned char *address = address_of(number, offset, length);

	return address ? zero(msync(address, length, flags)) : no_mapping();
}

static struct result do_userfaultfd_register(long number, unsigned long offset, unsigned long length, int mode)
{
	unsigned char *address = address_of(number, offset, length);
	uint64_t api[3] = { UFFD_API }, argument[4] = { (unsigned long)address, length, mode };
	struct result r;
	int fd;

	if (!address)
		return no_mapping();
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (fd < 0)
		return not_here("userfaultfd(2)");
	r = ioctl(fd, UFFDIO_API, api) ? failure(errno) : returned(ioctl(fd, UFFDIO_REGISTER, argument));
	close(fd);
	return r;
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

static struct result do_store(long number, unsigned long offset, int value)
{
	return access_byte(number, offset, value);
}
