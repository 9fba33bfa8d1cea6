// Package filelock keeps servers of this host from each other's files and disks.
//
// A lock on the file itself (flock(2), fcntl(2)) can be taken by any user who may read the
// file, and then keeps the servers out. So the locks are in a directory that only root can
// open: a file for each object, named for what identifies the object, and in it ranges of
// bytes (F_OFD_SETLK in fcntl(2)), each of which stands for a sector of the object.
//
// A [Lock] has two ranges of the same length. The first says that a server has the object.
// It ends with the process, or passes to the program that takes the place of the server.
// The second is registered with each ring that works on the object, so it ends only when
// the last operation of these rings has ended, however the process has ended. Who wants the
// object needs both.
//
// The locks reach as far as the directory: a host, or a container with a /run of its own.
// They say nothing about other programs, or about other hosts with the same network file
// system or disk.
package filelock
