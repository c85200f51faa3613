# SPDX-License-Identifier: Apache-2.0
"""The simulated machine: frames and their content, both stages of translation, TLBs, CPUs, guests."""
