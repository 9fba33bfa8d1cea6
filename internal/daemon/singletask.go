package daemon

import (
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop"
)

// singleTask is the task of a server of one device.
type singleTask struct {
	Name       string     `json:"name"`
	NameBytes  []byte     `json:"name_bytes,omitempty"` // of a name that is not UTF-8
	Config     taskConfig `json:"config"`
	Recover    *uint32    `json:"recover,omitempty"`
	Foreground bool       `json:"foreground"`
	JSON       bool       `json:"json"`
	Warnings   []string   `json:"warnings"`
}

// taskConfig is loop.Config as JSON. It lacks the key, which the server gets as a
// descriptor, and autoclear, which only a server of many devices implements.
type taskConfig struct {
	ID           *uint32      `json:"id,omitempty"`
	ReadOnly     bool         `json:"read_only"`
	Offset       uint64       `json:"offset"`
	SizeLimit    uint64       `json:"sizelimit"`
	WholeSectors bool         `json:"whole_sectors,omitempty"`
	SectorSize   uint32       `json:"sector_size"`
	DirectIO     loop.Switch  `json:"direct_io"`
	ZeroCopy     loop.Switch  `json:"zero_copy"`
	PartScan     bool         `json:"partscan"`
	Queues       int          `json:"queues"`
	Depth        int          `json:"depth"`
	MaxIOBytes   uint32       `json:"max_io_bytes"`
	Transfer     taskTransfer `json:"transfer"`
	OnCrash      loop.OnCrash `json:"on_crash"`
	Shared       bool         `json:"shared"`
	KeepSpace    bool         `json:"keep_space,omitempty"`
	Table        string       `json:"table,omitempty"`
	Ref          string       `json:"ref,omitempty"`
}

// taskTransfer is loop.TransferConfig as JSON.
type taskTransfer struct {
	Name           string `json:"name"`
	KeyBytes       int    `json:"key_bytes"`
	SectorSize     uint32 `json:"sector_size"`
	IVOffset       uint64 `json:"iv_offset"`
	IVLargeSectors bool   `json:"iv_large_sectors"`
	AllowDiscards  bool   `json:"allow_discards"`
	LUKS           int    `json:"luks"`
	UUID           string `json:"luks_uuid"`
	LUKSOffset     uint64 `json:"luks_offset"`
}

// singleTaskOf returns the task for a job's server.
func singleTaskOf(j *Job) *singleTask {
	c := &j.Config
	return &singleTask{
		Name: j.Name, NameBytes: rawname.Bytes(j.Name), Recover: j.Recover, Foreground: j.Foreground, JSON: j.JSON, Warnings: j.Warnings,
		Config: taskConfig{
			ID: c.ID, ReadOnly: c.ReadOnly, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
			DirectIO: c.DirectIO, ZeroCopy: c.ZeroCopy, PartScan: c.PartScan, Queues: c.Queues, Depth: c.Depth,
			MaxIOBytes: c.MaxIOBytes, Transfer: taskTransfer(c.Transfer), OnCrash: c.OnCrash, Shared: c.Shared, KeepSpace: c.KeepSpace, Table: c.Table, Ref: c.Ref,
		},
	}
}

// config returns the configuration of the task's device.
func (t *singleTask) config() loop.Config {
	c := &t.Config
	return loop.Config{
		ID: c.ID, ReadOnly: c.ReadOnly, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
		DirectIO: c.DirectIO, ZeroCopy: c.ZeroCopy, PartScan: c.PartScan, Queues: c.Queues, Depth: c.Depth,
		MaxIOBytes: c.MaxIOBytes, Transfer: loop.TransferConfig(c.Transfer), OnCrash: c.OnCrash, Shared: c.Shared, KeepSpace: c.KeepSpace, Table: c.Table, Ref: c.Ref,
	}
}
