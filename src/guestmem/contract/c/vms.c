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

static struct result do_check_extension(long vm, unsigned long capability)
{
	return returned(ioctl(fd_of(vm), KVM_CHECK_EXTENSION, capability));
}

/* A userspace_addr: a mapping, the address itself, or none. */
struct place {
	enum { IS_MAPPING, IS_ADDRESS } what;
	long value;
};

#define MAPPING(number) (struct place){ IS_MAPPING, number }

#define ADDRESS(address) (struct place){ IS_ADDRESS, address }

#define NOWHERE ADDRESS(0)

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

static struct result do_set_user_memory_region(long vm, unsigned long slot, unsigned long flags, unsigned long gpa,
					       unsigned long size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size,
	};

	return returned(ioctl(fd_of(vm), KVM_SET_USER_MEMORY_REGION, &region));
}

static struct result do_vm_memory_attributes(long vm, unsigned long gpa, unsigned long size, unsigned long attributes,
					     unsigned long flags)
{
	struct kvm_memory_attributes argument = {
		.address = gpa, .size = size, .attributes = attributes, .flags = flags,
	};

	return returned(ioctl(fd_of(vm), KVM_SET_MEMORY_ATTRIBUTES, &argument));
}

/* How many bytes are left at the end of the range. */
static struct result do_pre_fault(long vcpu, unsigned long gpa, unsigned long size, unsigned long flags)
{
	struct kvm_pre_fault_memory argument = { .gpa = gpa, .size = size, .flags = flags };

	return ioctl(fd_of(vcpu), KVM_PRE_FAULT_MEMORY, &argument) ? failure(errno) : number(argument.size);
}
