//! Virtual hosts: several machines on one kernel. Each has network, mount, pid, uts and ipc namespaces of its own, an
//! address on a switch (a bridge in a private network namespace) and a directory; killing its init is a power cut, after which
//! its namespaces, and all in them, are gone. Used by `tucano dev` and by the end-to-end tests.
