// Package wire converts between the types of package loop and those of package client,
// which the protocol and the JSON output use.
package wire

import (
	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

// Config returns the configuration that a request asks for. It lacks the key, which is
// sent separately, Autoclear, which follows from the request's lease, and Table, which is
// beside the configuration in a request.
func Config(c *client.Config) loop.Config {
	return loop.Config{
		ID: c.ID, ReadOnly: c.ReadOnly, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
		DirectIO: loop.Switch(c.DirectIO), ZeroCopy: loop.Switch(c.ZeroCopy), PartScan: c.PartScan,
		Queues: c.Queues, Depth: c.Depth, MaxIOBytes: c.MaxIOBytes, Transfer: loop.TransferConfig(c.Transfer),
		OnCrash: loop.OnCrash(c.OnCrash), Shared: c.Shared, KeepSpace: c.KeepSpace, Ref: c.Ref,
	}
}

// RequestConfig is the inverse of Config.
func RequestConfig(c *loop.Config) client.Config {
	return client.Config{
		ID: c.ID, ReadOnly: c.ReadOnly, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
		DirectIO: string(c.DirectIO), ZeroCopy: string(c.ZeroCopy), PartScan: c.PartScan,
		Queues: c.Queues, Depth: c.Depth, MaxIOBytes: c.MaxIOBytes, Transfer: client.Transfer(c.Transfer),
		OnCrash: string(c.OnCrash), Shared: c.Shared, KeepSpace: c.KeepSpace, Ref: c.Ref,
	}
}

// Device returns the description of a device for other programs.
func Device(s *loop.Status) client.Device {
	return client.Device{
		ID: s.ID, Device: s.Device, MajMin: s.MajMin, DiskSequence: s.DiskSequence, Tag: s.Tag, State: s.State, PID: s.PID,
		File: s.File, FileDevice: s.FileDevice, FileInode: s.FileInode, FileIsDisk: s.FileIsDisk,
		Size: s.Size, Offset: s.Offset, SizeLimit: s.SizeLimit,
		ReadOnly: s.ReadOnly, DirectIO: s.DirectIO, BufferMode: s.BufferMode, CopyReason: s.CopyReason,
		PartScan: s.PartScan, Ref: s.Ref, Autoclear: s.Autoclear, OnCrash: s.OnCrash, Queues: s.Queues, Depth: s.Depth,
		Transfer: client.Transfer(s.Transfer), Verity: s.Verity, Limits: client.Limits(s.Limits), Table: s.Table, Files: files(s.Files),
	}
}

func files(list []loop.StatusFile) (files []client.DeviceFile) {
	for _, f := range list {
		files = append(files, client.DeviceFile(f))
	}
	return files
}

// Devices returns the descriptions of devices. It returns an empty list, not nil, if
// there are none.
func Devices(list []loop.Status) []client.Device {
	devices := make([]client.Device, len(list))
	for i := range list {
		devices[i] = Device(&list[i])
	}
	return devices
}
