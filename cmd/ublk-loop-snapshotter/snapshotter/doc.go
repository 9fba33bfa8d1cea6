// Package snapshotter gives containerd its snapshots as block devices. Each device serves
// an image file that ublk-loop serve has attached.
//
//	Prepare  clones the parent's file, or makes a store of changes to the parent, and attaches it
//	Commit   removes the device; the file becomes a parent
//	View     attaches the parent's files themselves, read-only
//	Remove   removes the device, then the file
//
// containerd does not report an unmount. Therefore a device exists from Prepare or View
// until Commit or Remove. The device is leased: when this process ends for any reason,
// the server removes the device once it is unmounted. Mounts then attaches the file
// again, also after a restart of the machine, or finds the device that is still mounted.
// From then until the snapshotter tries to remove the device, the snapshotter also keeps
// it open: containerd mounts by the device's number, and the driver does not reuse the
// number of an open disk.
//
// Instead of layers, a snapshot can have an image file of the host, which labels name.
// Anyone who may start a container may write labels. Therefore images must be below
// directories that the settings name, and mount options must be on a list, as for the
// annotations of package oci. The author of an image in a registry also writes labels, on
// its layers. These labels cannot name a file.
//
// A snapshot is an image: a file with its file system. On a file system that cannot share
// blocks, only the first of several layers is an image. The others are stores: a store has
// the chunks that differ from those of its parent (docs/cow.md). Their device shows the
// image through all stores. Commit makes an image of a snapshot with maxStores stores.
//
// All files are below one directory, to which only root has access:
//
//	metadata.db   names, parents and labels, written by containerd's package storage
//	snapshots/ID  the image of an active or committed snapshot
//	snapshots/ID.cow  its store; not used if there is an image
//	scratch-SIZE  an empty file system, the parent of snapshots without a parent
//	new-*         unfinished files, which the next start removes
//	lock          locked by the one process that uses the directory
//
// Requests for the same snapshot run one after the other. Requests for different
// snapshots do not wait for each other.
package snapshotter
