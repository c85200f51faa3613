/* Descriptors. */

static struct result do_dup(long fd)
{
	struct handle *h = descriptor(fd);
	int copy = h ? fcntl(h->fd, F_DUPFD, 0) : (errno = EBADF, -1);

	return copy < 0 ? failure(errno) : opened(copy, h->file);
}

/* Through a socket, as SCM_RIGHTS, and back. */
static struct result do_pass_descriptor(long fd)
{
	struct handle *h = descriptor(fd);
	char byte = 'x';
	struct iovec data = { &byte, 1 };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { { 0 } };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	int ends[2], received = -1;
	ssize_t done;

	if (!h)
		return failure(EBADF);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		return failure(errno);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &h->fd, sizeof(int));
	done = sendmsg(ends[0], &message, 0);
	if (done == 1)
		done = recvmsg(ends[1], &message, 0);
	if (done == 1)
		memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	close(ends[0]);
	close(ends[1]);
	return received < 0 ? failure(errno) : opened(received, h->file);
}

static struct result do_close(long fd)
{
	struct handle *h = descriptor(fd);

	if (!h)
		return failure(EBADF);
	h->what = NOTHING;
	if (!--h->file->uses && h->file->let_go)
		h->file->let_go(h->file);
	return zero(close(h->fd));
}

static struct result do_memfd_create(unsigned long size)
{
	int fd = memfd_create("guestmem", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size))
		return failure(errno);
	return opened(fd, new_file(FILE_OF_ANY_KIND));
}

static struct result do_memfd_secret(unsigned long flags)
{
	int fd = syscall(NR_memfd_secret, flags);

	if (fd < 0 && errno == ENOSYS)
		return not_here("memfd_secret(2): CONFIG_SECRETMEM, secretmem.enable=1");
	return fd < 0 ? failure(errno) : opened(fd, new_file(FILE_OF_ANY_KIND));
}

/* The file. */

static struct result do_fstat(long fd)
{
	struct result r = { -1, "" };
	struct stat st;

	if (!descriptor(fd))
		return failure(EBADF);
	if (fstat(fd_of(fd), &st))
		return failure(errno);
	snprintf(r.text, sizeof(r.text), "size %lld, mode %o, blksize %ld, blocks %lld",
		 (long long)st.st_size, st.st_mode, (long)st.st_blksize, (long long)st.st_blocks);
	return r;
}

static struct result do_descriptor_flags(long fd)
{
	if (!descriptor(fd))
		return failure(EBADF);
	return pair(fcntl(fd_of(fd), F_GETFD), fcntl(fd_of(fd), F_GETFL));
}

static struct result do_same_inode(long one, long two)
{
	struct stat a, b;

	if (!descriptor(one) || !descriptor(two))
		return failure(EBADF);
	if (fstat(fd_of(one), &a) || fstat(fd_of(two), &b))
		return failure(errno);
	return number(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
}

static struct result do_fallocate(long fd, int mode, unsigned long offset, unsigned long length)
{
	return zero(fallocate(fd_of(fd), mode, offset, length));
}

/* How many pages of a range are in the page cache. */
static struct result do_cachestat(long fd, unsigned long offset, unsigned long length)
{
	uint64_t range[2] = { offset, length }, found[5];	/* struct cachestat_range, struct cachestat */

	if (syscall(NR_cachestat, fd_of(fd), range, found, 0)) {
		if (errno == ENOSYS)
			return not_here("cachestat(2), Linux 6.5");
		return failure(errno);
	}
	return number(found[0]);
}

/* reserved: which of the reserved words is 1, or ALL for none; 1 is no error_offset. */
static struct result do_set_memory_attributes(long fd, unsigned long offset, unsigned long size, unsigned long attributes,
					      unsigned long flags, unsigned long reserved)
{
	struct kvm_memory_attributes2 argument = {
		.offset = offset, .size = size, .attributes = attributes, .flags = flags, .error_offset = 1,
	};
	struct result r;
	size_t length;

	if (reserved != ALL)
		argument.reserved[reserved] = 1;
	r = returned(ioctl(fd_of(fd), KVM_SET_MEMORY_ATTRIBUTES2, &argument));
	length = strlen(r.text);
	if (argument.error_offset != 1)
		snprintf(r.text + length, sizeof(r.text) - length, " +0x%lx", (unsigned long)argument.error_offset);
	return r;
}

/* An operation that is rarely meant for guest memory. */
static struct result do_file_operation(long fd, long (*operation)(int fd, unsigned long offset), unsigned long offset)
{
	struct handle *h = descriptor(fd);

	return h ? returned(operation(h->fd, offset)) : failure(EBADF);
}

static char sixteen[16];

static long file_read(int fd, unsigned long offset)
{
	return read(fd, sixteen, 16);
}

static long file_write(int fd, unsigned long offset)
{
	return write(fd, sixteen, 16);
}

static long file_read_0(int fd, unsigned long offset)
{
	return read(fd, sixteen, 0);
}

static long file_write_0(int fd, unsigned long offset)
{
	return write(fd, sixteen, 0);
}

static long file_readv(int fd, unsigned long offset)
{
	struct iovec vector = { sixteen, 16 };

	return readv(fd, &vector, 1);
}

static long file_pread(int fd, unsigned long offset)
{
	return pread(fd, sixteen, 16, offset);
}

static long file_pwrite(int fd, unsigned long offset)
{
	return pwrite(fd, sixteen, 16, offset);
}

static long file_lseek_set(int fd, unsigned long offset)
{
	return lseek(fd, offset, SEEK_SET);
}

static long file_lseek_cur(int fd, unsigned long offset)
{
	return lseek(fd, offset, SEEK_CUR);
}

static long file_lseek_end(int fd, unsigned long offset)
{
	return lseek(fd, offset, SEEK_END);
}

static long file_lseek_data(int fd, unsigned long offset)
{
	return lseek(fd, offset, SEEK_DATA);
}

static long file_lseek_hole(int fd, unsigned long offset)
{
	return lseek(fd, offset, SEEK_HOLE);
}

static long file_ftruncate(int fd, unsigned long offset)
{
	return ftruncate(fd, offset);
}

static long file_fsync(int fd, unsigned long offset)
{
	return fsync(fd);
}

static long file_fdatasync(int fd, unsigned long offset)
{
	return fdatasync(fd);
}

static long file_readahead(int fd, unsigned long offset)
{
	return readahead(fd, 0, PAGE);
}

static long file_sync_file_range(int fd, unsigned long offset)
{
	return sync_file_range(fd, 0, PAGE, SYNC_FILE_RANGE_WRITE);
}

static long file_fadvise_dontneed(int fd, unsigned long offset)
{
	errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return errno ? -1 : 0;
}

static long file_flock(int fd, unsigned long offset)
{
	return flock(fd, LOCK_EX | LOCK_NB);
}

static long file_lockf(int fd, unsigned long offset)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_SETLK, &lock);
}

static long file_fchmod(int fd, unsigned long offset)
{
	return fchmod(fd, 0600);
}

static long file_fchown(int fd, unsigned long offset)
{
	return fchown(fd, getuid(), getgid());
}

static long file_futimens(int fd, unsigned long offset)
{
	return futimens(fd, NULL);
}

static long file_get_seals(int fd, unsigned long offset)
{
	return fcntl(fd, F_GET_SEALS);
}

static long file_add_seals(int fd, unsigned long offset)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
}

static long file_fsetxattr(int fd, unsigned long offset)
{
	return fsetxattr(fd, "user.x", "", 0, 0);
}

static long file_flistxattr(int fd, unsigned long offset)
{
	char names[256];

	return flistxattr(fd, names, sizeof(names)) < 0 ? -1 : 0;
}

/* A memfd of four pages. */
static int other_file(void)
{
	int fd = memfd_create("guestmem", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, 4 * PAGE))
		exit(NOT_HERE);
	return fd;
}

/* Close descriptors, and keep errno. */
static long and_close(long done, int one, int two)
{
	int saved = errno;

	close(one);
	if (two >= 0)
		close(two);
	errno = saved;
	return done;
}

static long file_copy_file_range_from(int fd, unsigned long offset)
{
	int to = other_file();

	return and_close(copy_file_range(fd, NULL, to, NULL, 16, 0), to, -1);
}

static long file_copy_file_range_to(int fd, unsigned long offset)
{
	int from = other_file();

	return and_close(copy_file_range(from, NULL, fd, NULL, 16, 0), from, -1);
}

/* A pipe with some bytes in it. */
static void full_pipe(int ends[2])
{
	static const char some[64];

	if (pipe(ends) || write(ends[1], some, sizeof(some)) != sizeof(some))
		exit(NOT_HERE);
}

static long file_splice_from(int fd, unsigned long offset)
{
	int ends[2];

	full_pipe(ends);
	return and_close(splice(fd, NULL, ends[1], NULL, 16, SPLICE_F_NONBLOCK), ends[0], ends[1]);
}

static long file_splice_to(int fd, unsigned long offset)
{
	int ends[2];

	full_pipe(ends);
	return and_close(splice(ends[0], NULL, fd, NULL, 16, SPLICE_F_NONBLOCK), ends[0], ends[1]);
}

static long file_sendfile_from(int fd, unsigned long offset)
{
	int to = other_file();

	return and_close(sendfile(to, fd, NULL, 16), to, -1);
}

static long file_sendfile_from_offset(int fd, unsigned long offset)
{
	int to = other_file();
	off_t start = 0;

	return and_close(sendfile(to, fd, &start, 16), to, -1);
}

static long file_sendfile_to(int fd, unsigned long offset)
{
	int from = other_file();

	return and_close(sendfile(fd, from, NULL, 16), from, -1);
}

static long file_poll(int fd, unsigned long offset)
{
	struct pollfd one = { fd, POLLIN | POLLOUT, 0 };

	return poll(&one, 1, 0) < 0 ? -1 : one.revents;
}

static long file_epoll_add(int fd, unsigned long offset)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLPRI | EPOLLOUT };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	return and_close(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), epoll, -1);
}

static long file_ioctl(int fd, unsigned long offset)
{
	int count = 0;

	return ioctl(fd, FIONREAD, &count);
}

static long file_fchdir(int fd, unsigned long offset)
{
	return fchdir(fd);
}

/* It does not succeed. */
static long file_execveat(int fd, unsigned long offset)
{
	char *none[] = { NULL };

	return syscall(SYS_execveat, fd, "", none, none, AT_EMPTY_PATH);
}

static long file_reopen(int fd, unsigned long offset)
{
	char path[40];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	if (again < 0)
		return -1;
	return close(again);
}

static long file_linkat(int fd, unsigned long offset)
{
	char path[40], name[PATH_MAX];
	const char *where = getenv("TMPDIR");

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	snprintf(name, sizeof(name), "%s/guestmem-%d", where ? where : "/tmp", (int)getpid());
	if (linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW))
		return -1;
	return unlink(name);
}
