// Package udev has the races with udev, and with whatever else takes care of device
// nodes: a new device's nodes come, its partitions are found, and udev opens a device
// when it is new and after each writer's close.
//
// A new device must be opened once before add may call it usable: its node may come late
// where something other than the kernel makes nodes, and udev may have the device open
// while the kernel is to read its partition table (Open, OpenScanned). A device that udev
// looks at is not in use, and can be removed a moment later (OutlastLook).
package udev
