# SPDX-License-Identifier: Apache-2.0
"""The simulated host: what the kernel puts around the guest_memfd library, in front of the library itself.

What happens to pages is the library's and the KVM driver's doing.  Here are descriptors, checks of arguments in the
kernel's order, mappings, memory slots, and the bytes in the frames.
"""
