// Package snapshotter gives containerd its snapshots as block devices, each of
// an image file that ublk-loop serve has attached.
//
//	Prepare  clone of the parent's file -> device -> mount of it, read-write
//	Commit   end of the device; the file is a parent from then on
//	View     device of the parent's file itself, read-only
//	Remove   end of the device, then of the file
//
// containerd tells nobody of an unmount, so a device is there from Prepare or
// View to Commit or Remove. It is leased: where this process ends, however it
// does, the device goes as soon as it is not mounted. Mounts attaches it anew
// then, after a restart of the machine too, or finds the one that is still
// mounted. It is open besides, from then until its removal is tried, since
// containerd mounts by its number, which the driver gives away only when nobody
// has the disk open.
//
// In the place of layers a snapshot can be an image file of the host's, which
// labels name. Who writes labels may be anybody who may start a container, so
// they name images below directories of the settings only, and mount options of
// a list, as the annotations of package oci do. Whoever makes an image for a
// registry writes labels as well, those of its layers: they name nothing.
//
// What is where, below one directory that is root's alone:
//
//	metadata.db   names, parents and labels, by containerd's package storage
//	snapshots/ID  the file of a snapshot that is active or committed
//	scratch-SIZE  an empty file system: the parent of those without one
//	new-*         what is still being made; nobody's after a restart
//	lock          held by the one process that uses the directory
//
// Requests for one snapshot wait for each other, those for others do not.
package snapshotter
