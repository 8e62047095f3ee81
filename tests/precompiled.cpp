// SPDX-License-Identifier: BSL-1.0
// Nothing but a file that the precompiled header of the tests is made for.
