// Package udev handles the races with udev, and with other programs that manage device
// nodes: a new device's nodes appear, the kernel finds its partitions, and udev opens a
// device when it is new and after each writer's close.
//
// A new device must be opened once before add may report it as usable. Its node may
// appear late if a program other than the kernel makes nodes, and udev may have the
// device open while the kernel has to read the partition table (Open, OpenScanned). A
// device that only udev has open counts as not in use, and can be removed a moment later
// (OutlastLook).
package udev
