// Package udev waits for what udev and the kernel do with a new device: its nodes
// come, its partitions are found, and udev opens it in between.
//
// A new device must be opened once before add may call it usable: the node may come
// late where something other than the kernel makes it, and udev may keep the device
// open while the kernel is to read its partition table. The opposite race, udev that
// looks at a device which is about to be removed, is package loop's (inuse.go).
package udev
