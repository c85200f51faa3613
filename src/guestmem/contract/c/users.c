/* Users of a mapping other than loads and stores. */

#define BYTES(text) (const unsigned char *)(text), sizeof(text) - 1

static unsigned char scratch[4 * PAGE] __attribute__((aligned(4096)));

static struct result do_process_vm_readv(long number, unsigned long offset, unsigned long length)
{
	struct iovec local = { scratch, length }, remote = { address_of(number, offset, length), length };
	ssize_t done;

	if (!remote.iov_base)
		return no_mapping();
	done = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	return done < 0 ? failure(errno) : bytes(scratch, done);
}

static struct result do_process_vm_writev(long number, unsigned long offset, const unsigned char *data, size_t length)
{
	struct iovec local = { (void *)data, length }, remote = { address_of(number, offset, length), length };

	if (!remote.iov_base)
		return no_mapping();
	return returned(process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
}

static struct result do_proc_mem_read(long number, unsigned long offset, unsigned long length)
{
	unsigned char *address = address_of(number, offset, length);
	int fd;
	ssize_t done;

	if (!address)
		return no_mapping();
	fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	done = pread(fd, scratch, length, (unsigned long)address);
	if (done < 0)
		return failure(errno);
	close(fd);
	return bytes(scratch, done);
}

static int pipe_ends[2];

static int *the_pipe(void)
{
	if (!pipe_ends[1] && pipe(pipe_ends))
		exit(NOT_HERE);
	return pipe_ends;
}

/* copy_from_user. */
static struct result do_write_pipe(long number, unsigned long offset, unsigned long length)
{
	unsigned char *address = address_of(number, offset, length);

	if (!address)
		return no_mapping();
	if (write(the_pipe()[1], address, length) < 0)
		return failure(errno);
	return bytes(scratch, length ? read(the_pipe()[0], scratch, length) : 0);
}

/* copy_to_user. */
static struct result do_read_pipe(long number, unsigned long offset, const unsigned char *data, size_t length)
{
	unsigned char *address = address_of(number, offset, length);
	struct result r;

	if (!address)
		return no_mapping();
	if (!length)
		return zero(0);
	if (write(the_pipe()[1], data, length) != (ssize_t)length)
		exit(NOT_HERE);
	r = returned(read(the_pipe()[0], address, length));
	if (r.number < 0 && read(the_pipe()[0], scratch, length) < 0)
		exit(NOT_HERE);
	return r;
}

/* A file without a name on a disk, for direct I/O. */
static int disk(void)
{
	static int fd = -1;
	const char *where = getenv("TMPDIR");

	if (fd < 0)
		fd = open(where ? where : "/var/tmp", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0)
		not_here("O_DIRECT below /var/tmp (set TMPDIR to a disk)");
	return fd;
}

/* One page to a disk with O_DIRECT; its first eight bytes as they arrive there. */
static struct result do_direct_write(long number, unsigned long offset)
{
	unsigned char *address = address_of(number, offset, PAGE);

	if (!address)
		return no_mapping();
	if (pwrite(disk(), address, PAGE, 0) < 0)
		return failure(errno);
	return pread(disk(), scratch, PAGE, 0) < 0 ? failure(errno) : bytes(scratch, 8);
}

/* One page full of a byte from a disk with O_DIRECT. */
static struct result do_direct_read(long number, unsigned long offset, int value)
{
	unsigned char *address = address_of(number, offset, PAGE);

	if (!address)
		return no_mapping();
	memset(scratch, value, PAGE);
	if (pwrite(disk(), scratch, PAGE, 0) < 0)
		return failure(errno);
	return returned(pread(disk(), address, PAGE, 0));
}

/* Pin pages in a pipe. */
static struct result do_vmsplice(long number, unsigned long offset, unsigned long length)
{
	struct iovec vector = { address_of(number, offset, length), length };
	struct result r;
	int ends[2];

	if (!vector.iov_base)
		return no_mapping();
	if (pipe(ends))
		return failure(errno);
	r = returned(vmsplice(ends[1], &vector, 1, 0));
	close(ends[1]);
	if (r.number < 0)
		close(ends[0]);
	return r.number < 0 ? r : opened(ends[0], new_file(PIPE));
}

static struct result do_read_spliced(long fd, unsigned long length)
{
	struct handle *h = descriptor(fd);
	ssize_t done;

	if (!h || h->file->kind != PIPE)
		return failure(EBADF);
	done = read(h->fd, scratch, length);
	return done < 0 ? failure(errno) : bytes(scratch, done);
}

/* Rings that are free for the next. Closing one has work done that ends system calls of this process with EINTR. */
static int rings[MOST_HANDLES];

static int free_rings;

static void free_ring(struct open_file *file)
{
	if (getpid() != file->process)
		return;
	syscall(NR_io_uring_register, file->ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
	rings[free_rings++] = file->ring;
}

/* Pin pages as a buffer of an io_uring. */
static struct result do_io_uring_register(long number, unsigned long offset, unsigned long length)
{
	struct iovec vector = { address_of(number, offset, length), length };
	static uint64_t parameters[15];
	struct open_file *file;
	int ring;

	if (!vector.iov_base)
		return no_mapping();
	memset(parameters, 0, sizeof(parameters));
	ring = free_rings ? rings[--free_rings] : syscall(NR_io_uring_setup, 1, parameters);
	if (ring < 0)
		return not_here("io_uring (kernel.io_uring_disabled)");
	if (syscall(NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, &vector, 1)) {
		rings[free_rings++] = ring;
		return failure(errno);
	}
	file = new_file(RING);
	file->ring = ring;
	file->process = getpid();
	file->let_go = free_ring;
	return opened(dup(ring), file);
}

static struct result do_futex_wake(long number, unsigned long offset)
{
	unsigned char *address = address_of(number, offset, 4);

	return address ? returned(syscall(SYS_futex, address, FUTEX_WAKE, 1, NULL, NULL, 0)) : no_mapping();
}
