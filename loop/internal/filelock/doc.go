// Package filelock keeps the servers of this host from using the same files and disks.
//
// A lock on the file itself (flock(2), fcntl(2)) can be taken by any user who may read
// the file, and then blocks the servers. Therefore the locks are in a directory that only
// root can open. It has a file for each object, whose name identifies the object. In that
// file, ranges of bytes are locked (F_OFD_SETLK in fcntl(2)), and each byte stands for a
// sector of the object.
//
// A [Lock] has two ranges of the same length. The first says that a server has the
// object. It ends with the process, or passes to the program that replaces the server.
// The second is registered with each ring that works on the object. Therefore it ends
// only when the last operation of these rings has ended, however the process has ended. A
// server that wants the object needs both.
//
// The locks are valid for one host, or for a container with its own /run. They do not
// affect other programs, nor other hosts with the same network file system or disk.
package filelock
