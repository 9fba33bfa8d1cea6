// Package sandbox starts a process that can only compute, and do I/O on the descriptors that it
// is given.
//
//	starter                                   process
//	Start: mount, network, IPC and UTS        has a user and group of its own, no capability,
//	       namespaces, user, capabilities     no_new_privs, and for now the files of the starter
//	                                          prepares what needs files
//	Process.Empty: removes all mounts         sees an empty directory without write permission
//	                                          LimitRings: list of what its rings may do
//	                                          Enter: Landlock that denies all, list of system calls
//
// After Enter the process gets its rings, because the workers of a ring keep the credentials of
// the task that uses it first. Each step depends on what the kernel and the starter's privileges
// offer, never on a version. Without the privileges for Start there is no sandbox. Landlock may be missing. If LimitRings is
// missing, the process calls EnterAsking: it makes no rings, and the starter makes them with their limits (RingServer).
package sandbox
