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

static struct result do_pages_4k(long vm)
{
	return no_guest();
}

static struct result do_memory_fault(long vcpu)
{
	return no_guest();
}
