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

/* What the last access said that ended in a memory fault. */
static struct result do_memory_fault(long vcpu)
{
	struct handle *h = descriptor(vcpu);
	struct result r = { -1, "" };
	struct guest_cpu *g;

	if (!h)
		return failure(EBADF);
	if (h->file->kind != VCPU || !h->file->guest)
		return ioctl(h->fd, KVM_RUN, 0) ? failure(errno) : failure(ENOTTY);
	g = h->file->guest;
	if (!g->faulted)
		return other("no memory fault");
	snprintf(r.text, sizeof(r.text), "(%lu, %lu, %lu)", (unsigned long)g->fault[0], (unsigned long)g->fault[1],
		 (unsigned long)g->fault[2]);
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

/* Live stage-2 entries of a VM, but for those of the guest's program. */
static struct result do_pages_4k(long vm)
{
	struct handle *h = descriptor(vm);
	struct guest_cpu *g;

	if (!h)
		return failure(EBADF);
	if (h->file->kind != VM)
		return ioctl(h->fd, KVM_GET_STATS_FD, 0) < 0 ? failure(errno) : failure(ENOTTY);
	if (h->file->stats < 0)
		h->file->stats = ioctl(h->fd, KVM_GET_STATS_FD, 0);
	if (h->file->stats < 0)
		return failure(errno);
	g = h->file->vcpu ? h->file->vcpu->guest : NULL;
	if (!g)
		return number(pages_of(h->file->stats));
	idle_guest(g);
	return number(pages_of(h->file->stats) - g->program_pages);
}
